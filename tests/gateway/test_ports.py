"""Ports: free, taken, and kept."""

import os
import socket
import threading

import pytest

from accord_gateway.server import ports
from accord_gateway.server.ports import PortUnavailable
from tests.ports import free_port


def test_a_free_port_is_free_again_after_it_was_looked_at() -> None:
    port = free_port()
    ports.require_free("127.0.0.1", port, "PORT")
    ports.require_free("127.0.0.1", port, "PORT")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_port_that_somebody_listens_on_is_not_free(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            PortUnavailable, match=rf"Port {port} is in use by process {os.getpid()} \(.+\)\. .*METRICS_PORT"
        ):
            ports.require_free(host, port, "METRICS_PORT")


def test_whoever_listens_is_found_while_it_opens_and_closes_files() -> None:
    stop, below = threading.Event(), os.open(os.devnull, os.O_RDONLY)

    def be_busy() -> None:
        while not stop.is_set():
            os.close(os.open(os.devnull, os.O_RDONLY))

    with socket.create_server(("127.0.0.1", 0)) as taken:
        os.close(below)  # so that the files come before the socket, where they are looked at first
        busy = threading.Thread(target=be_busy)
        busy.start()
        try:
            found = [ports.listener(taken.getsockname()[1]) for _ in range(50)]
        finally:
            stop.set()
            busy.join()
    assert all(owner is not None and f"process {os.getpid()} " in owner for owner in found)


def test_connections_that_linger_do_not_take_a_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        place: tuple[str, int] = server.getsockname()
        client = socket.create_connection(place)
        accepted, _ = server.accept()
        accepted.close()  # first, so that this side lingers
        client.close()
    ports.require_free(place[0], place[1], "PORT")


def test_a_reserved_port_is_kept_for_those_who_share_it() -> None:
    with ports.reserved("127.0.0.1", 0) as port:
        with pytest.raises(PortUnavailable):
            ports.require_free("127.0.0.1", port, "PORT")
        with socket.create_server(("127.0.0.1", port), reuse_port=True):
            pass


def test_a_host_that_is_not_here_is_said_so() -> None:
    with pytest.raises(PortUnavailable, match=r"METRICS_HOST .*no\.such\.host\.invalid"):
        ports.require_free("no.such.host.invalid", 1, "METRICS_PORT")
    with pytest.raises(PortUnavailable, match=r"192\.0\.2\.1:1234"):
        ports.require_free("192.0.2.1", 1234, "PORT")


@pytest.mark.parametrize(
    ("host", "written"), [("127.0.0.1", "127.0.0.1:1"), ("::1", "[::1]:1"), ("[::1]", "[::1]:1"), ("here", "here:1")]
)
def test_addresses_are_written_so_that_the_port_can_be_told(host: str, written: str) -> None:
    assert ports.address(host, 1) == written
