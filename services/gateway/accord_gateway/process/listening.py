"""The sockets that clients connect to. They stay open while workers are replaced, so that no connection is refused."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from accord_gateway.server import ports
from accord_gateway.settings import Settings
from accord_rpc.server.listening import bind_tcp


class ListeningSockets:
    """Each worker has its own sockets on the port (SO_REUSEPORT), among which the kernel spreads connections evenly. Its successor
    inherits them with the connections that wait there. All workers share a unix socket."""

    def __init__(
        self, port: int, of_workers: Sequence[Sequence[socket.socket]], file: "SocketFile | None" = None
    ) -> None:
        """Without sockets, each worker binds the port itself."""
        self.port = port
        self._of_workers = of_workers
        self._file = file

    def of_worker(self, number: int) -> Sequence[socket.socket]:
        return self._of_workers[number] if self._of_workers else ()

    def close(self) -> None:
        """For this process, when the gateway stops. Otherwise connections would wait here, without a worker to accept them, instead of
        being refused."""
        if self._file is not None:
            self._file.remove()
        for sockets in self._of_workers:
            for sock in sockets:
                sock.close()


class SocketFile:
    """The file of a unix socket, which the kernel keeps after the end of its process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._created = _identity(path)

    def remove(self) -> None:
        """Unless another gateway has replaced it, or a user has removed it."""
        with suppress(OSError):
            if _identity(self._path) == self._created:
                self._path.unlink()


def _identity(path: Path) -> tuple[int, int, int]:
    """The number of a removed file is used again, so it alone does not suffice. chmod and chown change neither."""
    found = path.lstat()
    return found.st_dev, found.st_ino, found.st_mtime_ns


@contextmanager
def listening_sockets(settings: Settings) -> Iterator[ListeningSockets]:
    """Raises PortUnavailable."""
    with ExitStack() as stack:
        if settings.server == "grpcio":  # accepts no sockets
            shared = settings.workers > 1 and not settings.unix_socket
            port = stack.enter_context(ports.reserve(settings.host, settings.port)) if shared else settings.port
            sockets = ListeningSockets(port, [])
        elif settings.unix_socket:
            unix = ports.bind_unix_socket(settings.unix_socket)
            sockets = ListeningSockets(0, [[unix]] * settings.workers, SocketFile(settings.unix_socket))
        else:
            sockets = _on_tcp(settings)
        stack.callback(sockets.close)
        yield sockets


def _on_tcp(settings: Settings) -> ListeningSockets:
    shared = settings.workers > 1
    try:
        first = bind_tcp(settings.host, settings.port, shared=shared)
        port = int(first[0].getsockname()[1])
        others = [bind_tcp(settings.host, port, shared=shared) for _ in range(settings.workers - 1)]
    except OSError as error:
        address = ports.format_address(settings.host, settings.port)
        raise ports.PortUnavailable(f"Cannot listen on {address}: {error.strerror}.") from None
    return ListeningSockets(port, [first, *others])
