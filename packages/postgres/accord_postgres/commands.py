"""The command lines of PostgreSQL's programs, and with them every setting of the embedded server."""

from pathlib import Path

from accord_postgres.binaries import binaries
from accord_postgres.sockets import PORT

SUPERUSER = "accord"

SETTINGS = {
    "listen_addresses": "",  # no TCP
    "port": str(PORT),  # a part of the socket's name
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "128MB",  # taken from the system only as it is used
    "idle_in_transaction_session_timeout": "60s",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "cluster_name": "accord",
}

WITHOUT_SYNC = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""Survives the end of every process, but not of the machine: for tests."""


def initdb(data: Path, *, sync: bool) -> list[str | Path]:
    return [
        binaries() / "initdb",
        f"--pgdata={data}",
        f"--username={SUPERUSER}",
        "--auth=trust",  # who may enter the socket's folder is who may connect
        "--encoding=UTF8",
        "--locale-provider=builtin",  # the same order of strings on every system
        "--builtin-locale=C.UTF-8",
        "--locale=C",
        "--no-instructions",
        *([] if sync else ["--no-sync"]),
    ]


def postgres(data: Path, *, sockets: Path, sync: bool) -> list[str | Path]:
    settings = SETTINGS | {"unix_socket_directories": quoted(sockets)} | ({} if sync else WITHOUT_SYNC)
    return [binaries() / "postgres", "-D", data, *(f"--{name}={value}" for name, value in settings.items())]


def quoted(path: Path) -> str:
    """An element of a list in a setting, where spaces at its ends and commas would count."""
    return '"' + str(path).replace('"', '""') + '"'
