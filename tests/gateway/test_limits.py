"""The limits of a connection, as a client meets them."""

import socket
import time

import grpc

from tests.gateway.conftest import GatewayProcess

CHECK = "/grpc.health.v1.Health/Check"
KIB, MIB = 1024, 1024 * 1024
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
EMPTY_SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
MAX_CONCURRENT_STREAMS = 3  # RFC 9113, 6.5.2


def code_of_check(gateway: GatewayProcess, *, message: bytes = b"", header: str = "") -> grpc.StatusCode:
    with grpc.insecure_channel(gateway.address, [("grpc.max_metadata_size", MIB)]) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CHECK)
        try:
            call(message, metadata=(("x-header", header),), timeout=10)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def connected(gateway: GatewayProcess) -> socket.socket:
    host, _, port = gateway.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=15)


def exactly(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        received += connection.recv(size - len(received))
    return received


def settings_frame(connection: socket.socket) -> dict[int, int]:
    """The first frame of the server."""
    header = exactly(connection, 9)
    payload = exactly(connection, int.from_bytes(header[:3]))
    entries = (payload[at : at + 6] for at in range(0, len(payload), 6))
    return {int.from_bytes(entry[:2]): int.from_bytes(entry[2:]) for entry in entries}


def test_a_connection_may_have_a_hundred_calls_open(gateway: GatewayProcess) -> None:
    with connected(gateway) as connection:
        connection.sendall(HTTP2 + EMPTY_SETTINGS)
        assert settings_frame(connection)[MAX_CONCURRENT_STREAMS] == 100


def test_a_silent_connection_is_closed(gateway: GatewayProcess) -> None:
    with connected(gateway) as connection:
        opened = time.monotonic()
        while connection.recv(4096):
            pass
        assert 4 < time.monotonic() - opened < 8


def test_messages_of_more_than_four_mebibytes_are_refused(gateway: GatewayProcess) -> None:
    assert code_of_check(gateway, message=b"\x12" + _length(5 * MIB) + b"x" * (5 * MIB)) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED
    )


def test_the_limit_of_headers_applies_to_every_call_alike(gateway: GatewayProcess) -> None:
    under, over = "h" * (14 * KIB), "h" * (20 * KIB)
    assert {code_of_check(gateway, header=under) for _ in range(20)} == {grpc.StatusCode.OK}
    assert {code_of_check(gateway, header=over) for _ in range(20)} == {grpc.StatusCode.RESOURCE_EXHAUSTED}


def _length(size: int) -> bytes:
    """As a varint of protobuf: seven bits per byte, the lowest first."""
    encoded = b""
    while size > 127:
        encoded += bytes([size & 127 | 128])
        size >>= 7
    return encoded + bytes([size])
