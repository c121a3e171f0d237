"""The log line `listening` and, in development, example calls to copy into a terminal."""

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from accord_gateway.server.ports import format_address
from accord_gateway.settings import Settings

ACCOUNTS = "accord.accounts.v1.AccountService"
TASKS = "accord.tasks.v1.TaskService"

SIGN_UP = '{"email": "ada@example.com", "password": "a sentence that only I know", "display_name": "Ada"}'
SIGN_IN = '{"email": "ada@example.com", "password": "a sentence that only I know"}'
CREATE_TASK = '{"title": "Try Accord"}'
LIST_TASKS = '{"page_size": 20}'

EXTRACT_TOKEN = r"""sed -n 's/.*"session_*[Tt]oken": *"\([^"]*\)".*/\1/p'"""  # noqa: S105  # a command
WITH_TOKEN = '-H "authorization: Bearer $TOKEN"'  # noqa: S105  # a flag

# Returns the command that calls a method, from its flags, message and method.
Call = Callable[[str, str, str], str]


def announce(settings: Settings, port: int) -> None:
    log = structlog.get_logger()
    address = f"unix:{settings.unix_socket}" if settings.unix_socket else format_address(settings.host, port)
    log.info("listening", address=address, workers=settings.workers)
    if not settings.production and settings.reflection == "on" and not settings.unix_socket:
        sys.stderr.write(banner(settings, port))


def banner(settings: Settings, port: int) -> str:
    lines = (
        "",
        "Accord runs until you press Ctrl-C. Try these calls in another terminal, with grpcurl:",
        "",
        *_calls(_grpcurl(settings, port)),
        "",
        "or with buf, which the set-up installed:",
        "",
        *_calls(_buf(settings, port)),
        "",
    )
    return "\n".join(lines)


def _calls(call: Call) -> Iterable[str]:
    """Sign up, sign in, create a task, list tasks."""
    yield call("", SIGN_UP, f"{ACCOUNTS}/SignUp")
    yield f"TOKEN=$({call('', SIGN_IN, f'{ACCOUNTS}/SignIn')} | {EXTRACT_TOKEN})"
    yield call(f"{WITH_TOKEN} ", CREATE_TASK, f"{TASKS}/CreateTask")
    yield call(f"{WITH_TOKEN} ", LIST_TASKS, f"{TASKS}/ListTasks")


def _grpcurl(settings: Settings, port: int) -> Call:
    tls = "-insecure" if settings.tls_cert_file else "-plaintext"
    address = format_address(_local_host(settings.host), port)
    return lambda flags, message, method: f"grpcurl {tls} {flags}-d '{message}' {address} {method}"


def _buf(settings: Settings, port: int) -> Call:
    buf = f"{_program('buf')} curl --protocol grpc"
    buf += " --insecure" if settings.tls_cert_file else " --http2-prior-knowledge"
    scheme = "https" if settings.tls_cert_file else "http"
    url = f"{scheme}://{format_address(_local_host(settings.host), port)}"
    return lambda flags, message, method: f"{buf} {flags}-d '{message}' {url}/{method}"


def _local_host(host: str) -> str:
    """A host to connect to, for one to listen on."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.strip("[]"), host)  # noqa: S104  # looked up, not bound


def _program(name: str) -> str:
    """The program of this Python environment, as a path from the working directory."""
    path = Path(sys.executable).parent / name
    return os.path.relpath(path) if path.exists() else name
