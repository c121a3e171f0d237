"""The command lines of PostgreSQL's programs, which include every setting of the embedded server."""

import sys
from pathlib import Path

from accord_postgres.binaries import binaries
from accord_postgres.sockets import PORT

SUPERUSER = "accord"

SETTINGS = {
    "listen_addresses": "",  # no TCP
    "port": str(PORT),  # part of the socket's name
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "128MB",  # allocated as it is used
    "idle_in_transaction_session_timeout": "60s",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "cluster_name": "accord",
}

if sys.platform == "linux":
    # After a crash PostgreSQL syncs its data first: with one call, 0.5 s, and not file by file, 4 s on a slow disk.
    SETTINGS["recovery_init_sync_method"] = "syncfs"

WITHOUT_SYNC = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""For tests: a clean shutdown keeps everything, but a killed server loses its last commits."""


def initdb(data: Path, *, sync: bool) -> list[str | Path]:
    return [
        binaries() / "initdb",
        f"--pgdata={data}",
        f"--username={SUPERUSER}",
        "--auth=trust",  # access to the socket's folder is access to the server
        "--encoding=UTF8",
        "--locale-provider=builtin",  # the same collation on every system
        "--builtin-locale=C.UTF-8",
        "--locale=C",
        "--no-instructions",
        *([] if sync else ["--no-sync"]),
    ]


def postgres(data: Path, *, sockets: Path, sync: bool) -> list[str | Path]:
    settings = SETTINGS | {"unix_socket_directories": quoted(sockets)} | ({} if sync else WITHOUT_SYNC)
    return [binaries() / "postgres", "-D", data, *(f"--{name}={value}" for name, value in settings.items())]


def quoted(path: Path) -> str:
    """An element of a list in a setting. Unquoted, commas and outer spaces would be syntax."""
    return '"' + str(path).replace('"', '""') + '"'
