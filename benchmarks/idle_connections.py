"""Measures the memory of idle connections: `python -m benchmarks.idle_connections 50051 PID --http2`.

PID is the process that serves the port of this machine. Each connection has served one request. Memory of the kernel is not counted."""

import argparse
import socket
from collections.abc import Callable
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from time import sleep
from typing import TypeAlias

from ngh2 import Connection, ResponseReceived, Role, StreamClosed

from benchmarks.processes import resident_mib

PER_ADDRESS = 500  # connections; the limit of the server is 1,000
HTTP1_REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
HTTP2_REQUEST = (
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":path", b"/healthz"),
    (b":authority", b"localhost"),
)

Request: TypeAlias = Callable[[], None]
"""Makes one request on a connection, and ends the program if it gets no response."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("pid", type=int)
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--http2", action="store_true")
    chosen = parser.parse_args()
    used = kib_per_connection(chosen.port, chosen.pid, chosen.connections, http2=chosen.http2)
    print(f"{chosen.connections:,} idle connections, {used:.1f} KiB each, all of which still respond")


def kib_per_connection(port: int, pid: int, number: int, *, http2: bool) -> float:
    """Ends the program if a connection does not respond."""
    setrlimit(RLIMIT_NOFILE, (getrlimit(RLIMIT_NOFILE)[1],) * 2)
    for connection, _ in [connect(port, place, http2=http2) for place in range(100)]:
        connection.close()  # the memory that any number of connections needs
    sleep(1)
    before = resident_mib(pid)
    connections = [connect(port, place, http2=http2) for place in range(number)]
    sleep(2)
    used = (resident_mib(pid) - before) * 1024
    for connection, request in connections:
        request()
        connection.close()
    return used / number


def connect(port: int, number: int, *, http2: bool) -> tuple[socket.socket, Request]:
    """A connection that has made one request, and what makes the next one."""
    source = f"127.0.1.{1 + number // PER_ADDRESS}"
    connection = socket.create_connection(("127.0.0.1", port), timeout=5, source_address=(source, 0))
    request = http2_requests(connection) if http2 else http1_requests(connection)
    request()
    return connection, request


def http1_requests(connection: socket.socket) -> Request:
    def request() -> None:
        connection.sendall(HTTP1_REQUEST)
        _require(connection.recv(65536).startswith(b"HTTP/1.1 "))

    return request


def http2_requests(connection: socket.socket) -> Request:
    http = Connection(Role.CLIENT)
    http.initiate_connection({})

    def request() -> None:
        http.send_request(HTTP2_REQUEST, end_stream=True)
        seen: set[type] = set()
        while StreamClosed not in seen:
            connection.sendall(http.data_to_send())
            data = connection.recv(65536)
            _require(bool(data))
            http.receive_data(data)
            seen.update(map(type, http.events()))
        connection.sendall(http.data_to_send())
        _require(ResponseReceived in seen)

    return request


def _require(responded: bool) -> None:
    if not responded:
        raise SystemExit("The server has closed a connection.")


if __name__ == "__main__":
    main()
