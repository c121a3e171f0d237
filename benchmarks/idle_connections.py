"""Measures the memory of idle HTTP/1.1 connections: `python -m benchmarks.idle_connections 50051 PID`.

PID is the process that serves the port of this machine. Each connection has served one request. Memory of the kernel is not counted."""

import argparse
import socket
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from time import sleep

from benchmarks.processes import resident_mib

PER_ADDRESS = 500  # connections; the limit of the server is 1,000
REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("pid", type=int)
    parser.add_argument("--connections", type=int, default=5000)
    chosen = parser.parse_args()
    used = kib_per_connection(chosen.port, chosen.pid, chosen.connections)
    print(f"{chosen.connections:,} idle connections, {used:.1f} KiB each, all of which still respond")


def kib_per_connection(port: int, pid: int, number: int) -> float:
    """Ends the program if a connection does not respond."""
    setrlimit(RLIMIT_NOFILE, (getrlimit(RLIMIT_NOFILE)[1],) * 2)
    for connection in [connect(port, place) for place in range(100)]:
        connection.close()  # the memory that any number of connections needs
    sleep(1)
    before = resident_mib(pid)
    connections = [connect(port, place) for place in range(number)]
    sleep(2)
    used = (resident_mib(pid) - before) * 1024
    for connection in connections:
        connection.settimeout(5)
        request(connection)
        connection.close()
    return used / number


def connect(port: int, number: int) -> socket.socket:
    source = f"127.0.1.{1 + number // PER_ADDRESS}"
    connection = socket.create_connection(("127.0.0.1", port), timeout=5, source_address=(source, 0))
    request(connection)
    return connection


def request(connection: socket.socket) -> None:
    connection.sendall(REQUEST)
    if not connection.recv(65536).startswith(b"HTTP/1.1 "):
        raise SystemExit("The server has closed a connection.")


if __name__ == "__main__":
    main()
