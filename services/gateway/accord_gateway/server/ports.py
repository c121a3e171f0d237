"""Whether a port is free, and who has it if not."""

import errno
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from accord_gateway.errors import StartupError

LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp


class PortUnavailable(StartupError):
    """A port cannot be listened on; the message says why and what to do."""


def address(host: str, port: int) -> str:
    return f"[{host.strip('[]')}]:{port}" if ":" in host else f"{host}:{port}"


def require_free(host: str, port: int, setting: str) -> None:
    """Raises PortUnusable if somebody listens there, even if they share the port by SO_REUSEPORT as our workers do."""
    with ExitStack() as stack:
        for family, place in _places(host, port, setting):
            probe = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that linger are no listeners
            _bind(probe, family, place, setting)


@contextmanager
def reserved(host: str, port: int) -> Iterator[int]:
    """Keeps a port, any free one for 0, while worker processes come and go: bound to be shared, never listened on."""
    family, place = next(_places(host, port, "PORT"))
    with socket.socket(family, socket.SOCK_STREAM) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _bind(held, family, place, "PORT")
        yield held.getsockname()[1]


def _places(host: str, port: int, setting: str) -> Iterator[tuple[socket.AddressFamily, tuple[str, int]]]:
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        host_setting = setting.replace("PORT", "HOST")
        raise PortUnavailable(
            f"{host_setting} is {host!r}, which is no address of this machine: {error.strerror}."
        ) from None
    for family, _, _, _, place in found:
        yield family, (str(place[0]), port)


def _bind(probe: socket.socket, family: socket.AddressFamily, place: tuple[str, int], setting: str) -> None:
    if family == socket.AF_INET6:
        probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        probe.bind(place)
    except OSError as error:
        raise PortUnavailable(_explanation(*place, error, setting)) from None


def _explanation(host: str, port: int, error: OSError, setting: str) -> str:
    if isinstance(error, PermissionError):
        return f"Port {port} needs privileges. Set {setting} to one above 1023."
    if error.errno != errno.EADDRINUSE:
        return f"Cannot listen on {address(host, port)}: {error.strerror}."
    owner = listener(port)
    return f"Port {port} is in use{f' by {owner}' if owner else ''}. Stop that, or set {setting} to another port."


def listener(port: int) -> str | None:
    """The process that listens on a port, as far as this account may see it. Linux only."""
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for process in Path("/proc").glob("[0-9]*") if sockets else ():
        with suppress(OSError):
            if not sockets.isdisjoint(_open_files(process)):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                return f"process {process.name} ({command[:80]})"
    return None


def _open_files(process: Path) -> Iterator[str]:
    for handle in (process / "fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            yield str(handle.readlink())


def _listening_inodes(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENING and re.search(f":{port:04X}$", fields[1]):
                    yield fields[9]
