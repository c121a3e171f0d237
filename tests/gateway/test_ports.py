"""Ports that are free, in use, and reserved."""

import os
import socket
import threading

import pytest

from accord_gateway.server import ports
from accord_gateway.server.ports import PortUnavailable
from tests.ports import free_port


def test_checking_a_port_leaves_it_free() -> None:
    port = free_port()
    ports.require_free("127.0.0.1", port, "PORT")
    ports.require_free("127.0.0.1", port, "PORT")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_port_that_a_process_listens_on_is_not_free(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            PortUnavailable, match=rf"Port {port} is in use by process {os.getpid()} \(.+\)\. .*METRICS_PORT"
        ):
            ports.require_free(host, port, "METRICS_PORT")


def test_a_listening_process_is_found_while_it_opens_and_closes_files() -> None:
    stop, lower = threading.Event(), os.open(os.devnull, os.O_RDONLY)

    def open_and_close() -> None:
        while not stop.is_set():
            os.close(os.open(os.devnull, os.O_RDONLY))

    with socket.create_server(("127.0.0.1", 0)) as taken:
        os.close(lower)  # so that the files have lower descriptors than the socket, and are read first
        busy = threading.Thread(target=open_and_close)
        busy.start()
        try:
            found = [ports.listening_process(taken.getsockname()[1]) for _ in range(50)]
        finally:
            stop.set()
            busy.join()
    assert all(process is not None and f"process {os.getpid()} " in str(process) for process in found)


def test_connections_in_time_wait_do_not_occupy_a_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address: tuple[str, int] = server.getsockname()
        client = socket.create_connection(address)
        accepted, _ = server.accept()
        accepted.close()  # first, so that this side enters TIME_WAIT
        client.close()
    ports.require_free(*address, "PORT")


def test_a_reserved_port_is_available_only_to_sockets_that_share_it() -> None:
    with ports.reserve("127.0.0.1", 0) as port:
        with pytest.raises(PortUnavailable):
            ports.require_free("127.0.0.1", port, "PORT")
        with socket.create_server(("127.0.0.1", port), reuse_port=True):
            pass


def test_a_host_that_does_not_resolve_or_is_not_local_is_reported() -> None:
    with pytest.raises(PortUnavailable, match=r"METRICS_HOST .*no\.such\.host\.invalid"):
        ports.require_free("no.such.host.invalid", 1, "METRICS_PORT")
    with pytest.raises(PortUnavailable, match=r"192\.0\.2\.1:1234"):
        ports.require_free("192.0.2.1", 1234, "PORT")


@pytest.mark.parametrize(
    ("host", "formatted"), [("127.0.0.1", "127.0.0.1:1"), ("::1", "[::1]:1"), ("[::1]", "[::1]:1"), ("here", "here:1")]
)
def test_ipv6_addresses_have_brackets(host: str, formatted: str) -> None:
    assert ports.format_address(host, 1) == formatted
