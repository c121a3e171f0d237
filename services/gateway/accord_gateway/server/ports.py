"""Whether a port is free, and which process listens on it otherwise."""

import errno
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from accord_gateway.errors import StartupError

LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp


class PortUnavailable(StartupError):
    """The gateway cannot listen on a port."""


def format_address(host: str, port: int) -> str:
    """`host:port`, with an IPv6 address in brackets."""
    return f"[{host.strip('[]')}]:{port}" if ":" in host else f"{host}:{port}"


def require_free(host: str, port: int, setting: str) -> None:
    """Raises PortUnavailable if a process listens there, even one that shares the port by SO_REUSEPORT, as workers do."""
    with ExitStack() as stack:
        for family, address in _resolve(host, port, setting):
            probe = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ignores connections in TIME_WAIT
            _bind(probe, family, address, setting)


@contextmanager
def reserve(host: str, port: int) -> Iterator[int]:
    """Reserves a port until the block ends, or any free port for 0: no other program can bind it while workers restart. The socket
    never listens."""
    family, address = next(_resolve(host, port, "PORT"))
    with socket.socket(family, socket.SOCK_STREAM) as reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _bind(reservation, family, address, "PORT")
        yield reservation.getsockname()[1]


def bind_unix_socket(path: Path) -> socket.socket:
    """Replaces a socket on which no process listens any more. Raises PortUnavailable."""
    from accord_rpc.server.listening import bind_unix  # with its imports, which other commands do not need

    try:
        return bind_unix(path)
    except OSError as error:
        raise PortUnavailable(
            f"Cannot listen on {path}: {error.strerror}. Stop the other process, or set UNIX_SOCKET to another path."
        ) from None


def _resolve(host: str, port: int, setting: str) -> Iterator[tuple[socket.AddressFamily, tuple[str, int]]]:
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        host_setting = setting.replace("PORT", "HOST")
        raise PortUnavailable(f"{host_setting} is {host!r}, which does not resolve: {error.strerror}.") from None
    for family, _, _, _, address in found:
        yield family, (str(address[0]), port)


def _bind(probe: socket.socket, family: socket.AddressFamily, address: tuple[str, int], setting: str) -> None:
    if family == socket.AF_INET6:
        probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        probe.bind(address)
    except OSError as error:
        raise PortUnavailable(_explanation(*address, error, setting)) from None


def _explanation(host: str, port: int, error: OSError, setting: str) -> str:
    if isinstance(error, PermissionError):
        return f"Port {port} requires privileges. Set {setting} to a port above 1023."
    if error.errno != errno.EADDRINUSE:
        return f"Cannot listen on {format_address(host, port)}: {error.strerror}."
    process = listening_process(port)
    used = f" by {process}" if process else ""
    return f"Port {port} is in use{used}. Stop the other process, or set {setting} to another port."


class Process(NamedTuple):
    pid: str
    arguments: list[str]

    def __str__(self) -> str:
        return f"process {self.pid} ({' '.join(self.arguments)[:80]})"

    @property
    def is_gateway(self) -> bool:
        """Whether it runs `accord serve`, or is one of its workers."""
        programs = zip(self.arguments, self.arguments[1:], strict=False)
        return any(Path(name).name in _PROGRAMS and command in ("serve", "worker") for name, command in programs)


_PROGRAMS: Final = ("accord", "accord_gateway")


def listening_process(port: int) -> Process | None:
    """The process that listens on a port. None if the operating system is not Linux, or hides the process from this user."""
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for process in Path("/proc").glob("[0-9]*") if sockets else ():
        with suppress(OSError):
            if not sockets.isdisjoint(_open_files(process)):
                command = (process / "cmdline").read_bytes().decode(errors="replace")
                return Process(process.name, command.removesuffix("\0").split("\0"))
    return None


def _open_files(process: Path) -> Iterator[str]:
    for descriptor in (process / "fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            yield str(descriptor.readlink())


def _listening_inodes(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENING and re.search(f":{port:04X}$", fields[1]):
                    yield fields[9]
