"""The log line `listening` and, in development, the API reference and example calls to copy into a terminal."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import structlog

from accord_gateway.server.ports import format_address
from accord_gateway.settings import Settings

SIGN_UP = '{"email": "ada@example.com", "password": "a sentence that only I know", "display_name": "Ada"}'
SIGN_IN = '{"email": "ada@example.com", "password": "a sentence that only I know"}'
CREATE_TASK = '{"title": "Try Accord"}'
LIST_TASKS = '{"page_size": 20}'

EXTRACT_TOKEN = r"""sed -n 's/.*"session_*[Tt]oken": *"\([^"]*\)".*/\1/p'"""  # noqa: S105  # a command
WITH_TOKEN = '-H "authorization: Bearer $TOKEN"'  # noqa: S105  # a flag


def announce(settings: Settings, port: int) -> None:
    log = structlog.get_logger()
    address = f"unix:{settings.unix_socket}" if settings.unix_socket else format_address(settings.host, port)
    log.info("listening", address=address, workers=settings.workers)
    if not (settings.production or settings.unix_socket):
        sys.stderr.write("\n".join(("", *banner(settings, port), "")))


def banner(settings: Settings, port: int) -> Iterator[str]:
    address = format_address(_local_host(settings.host), port)
    yield "Accord runs until you press Ctrl-C."
    yield ""
    if settings.server == "accord":
        if settings.reflection != "off":
            yield f"Sign in and try every method in a browser:  {_url(settings, address)}/docs"
            yield ""
        yield "Try these calls in another terminal:"
        yield ""
        yield from _with_curl(settings, address)
        yield ""
    if settings.reflection == "on":
        yield "With gRPC, use buf, which the set-up installed, or grpcurl:"
        yield ""
        yield from _with_grpc(settings, address)
        yield ""


def _with_curl(settings: Settings, address: str) -> Iterator[str]:
    """Sign up, sign in, create a task, list tasks."""
    insecure = "--insecure " if settings.tls_cert_file else ""
    url = f"{_url(settings, address)}/v1"
    json = "-H 'content-type: application/json'"
    yield f"curl -w '\\n' {insecure}{url}/accounts {json} -d '{SIGN_UP}'"
    yield f"TOKEN=$(curl -s {insecure}{url}/sessions {json} -d '{SIGN_IN}' | {EXTRACT_TOKEN})"
    yield f"curl -w '\\n' {insecure}{url}/tasks {WITH_TOKEN} {json} -d '{CREATE_TASK}'"
    yield f"curl -w '\\n' {insecure}'{url}/tasks?page_size=20' {WITH_TOKEN}"


def _with_grpc(settings: Settings, address: str) -> Iterator[str]:
    """SERVER=grpcio has no REST, so that signing in takes gRPC too."""
    buf = f"{_program('buf')} curl --protocol grpc"
    buf += " --insecure" if settings.tls_cert_file else " --http2-prior-knowledge"
    accounts = f"{_url(settings, address)}/accord.accounts.v1.AccountService"
    tasks = "accord.tasks.v1.TaskService/ListTasks"
    if settings.server == "grpcio":
        yield f"{buf} -d '{SIGN_UP}' {accounts}/SignUp"
        yield f"TOKEN=$({buf} -d '{SIGN_IN}' {accounts}/SignIn | {EXTRACT_TOKEN})"
    yield f"{buf} {WITH_TOKEN} -d '{LIST_TASKS}' {_url(settings, address)}/{tasks}"
    tls = "-insecure" if settings.tls_cert_file else "-plaintext"
    yield f"grpcurl {tls} {WITH_TOKEN} -d '{LIST_TASKS}' {address} {tasks}"


def _url(settings: Settings, address: str) -> str:
    return f"{'https' if settings.tls_cert_file else 'http'}://{address}"


def _local_host(host: str) -> str:
    """A host to connect to, for one to listen on."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.strip("[]"), host)  # noqa: S104  # looked up, not bound


def _program(name: str) -> str:
    """The program of this Python environment, as a path from the working directory."""
    path = Path(sys.executable).parent / name
    return os.path.relpath(path) if path.exists() else name
