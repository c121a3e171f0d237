"""What is said when the gateway serves: where, and in development what to type next."""

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from accord_gateway.server.ports import address
from accord_gateway.settings import Settings

ACCOUNTS = "accord.accounts.v1.AccountService"
TASKS = "accord.tasks.v1.TaskService"

SIGN_UP = '{"email": "ada@example.com", "password": "nobody else has this sentence", "display_name": "Ada"}'
SIGN_IN = '{"email": "ada@example.com", "password": "nobody else has this sentence"}'
CREATE_TASK = '{"title": "Try Accord"}'
LIST_TASKS = '{"page_size": 20}'

EXTRACT_IT = r"""sed -n 's/.*"session_*[Tt]oken": *"\([^"]*\)".*/\1/p'"""
WITH_IT = '-H "authorization: Bearer $TOKEN"'

# From flags, a message and a method, the command that makes the call.
Call = Callable[[str, str, str], str]


def announce(settings: Settings, port: int) -> None:
    log = structlog.get_logger()
    log.info("listening", address=address(settings.host, port), workers=settings.workers)
    if not settings.production and settings.reflection == "on":
        sys.stderr.write(what_next(settings, port))


def what_next(settings: Settings, port: int) -> str:
    lines = (
        "",
        "Accord is running until you press Ctrl-C. What to type next, in another terminal, with grpcurl:",
        "",
        *_calls(_grpcurl(settings, port)),
        "",
        "or with buf, which came with the set-up:",
        "",
        *_calls(_buf(settings, port)),
        "",
    )
    return "\n".join(lines)


def _calls(call: Call) -> Iterable[str]:
    """Sign up, sign in, create a task, list tasks."""
    yield call("", SIGN_UP, f"{ACCOUNTS}/SignUp")
    yield f"TOKEN=$({call('', SIGN_IN, f'{ACCOUNTS}/SignIn')} | {EXTRACT_IT})"
    yield call(f"{WITH_IT} ", CREATE_TASK, f"{TASKS}/CreateTask")
    yield call(f"{WITH_IT} ", LIST_TASKS, f"{TASKS}/ListTasks")


def _grpcurl(settings: Settings, port: int) -> Call:
    plain = "-insecure" if settings.tls_cert_file else "-plaintext"
    place = address(_reachable(settings.host), port)
    return lambda flags, message, method: f"grpcurl {plain} {flags}-d '{message}' {place} {method}"


def _buf(settings: Settings, port: int) -> Call:
    buf = f"{_program('buf')} curl --protocol grpc"
    buf += " --insecure" if settings.tls_cert_file else " --http2-prior-knowledge"
    url = f"{'https' if settings.tls_cert_file else 'http'}://{address(_reachable(settings.host), port)}"
    return lambda flags, message, method: f"{buf} {flags}-d '{message}' {url}/{method}"


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.strip("[]"), host)  # noqa: S104  # looked for, not bound


def _program(name: str) -> str:
    """The one beside this Python, as it is written from here."""
    beside = Path(sys.executable).parent / name
    return os.path.relpath(beside) if beside.exists() else name
