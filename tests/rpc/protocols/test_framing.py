"""Length-prefixed messages."""

from collections.abc import Iterator

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord_rpc.protocols.framing import COMPRESSED, FramingError, Incomplete, MessageReader, compress, expand, frame


def messages(reader: MessageReader) -> Iterator[tuple[int, bytes]]:
    while (found := reader.take()) is not None:
        yield found


@given(st.lists(st.binary(max_size=50), max_size=8), st.integers(1, 20))
def test_messages_are_the_same_however_they_are_cut(sent: list[bytes], size: int) -> None:
    incomplete = Incomplete(1000)
    reader, body = MessageReader(None, incomplete), b"".join(map(frame, sent))
    found: list[tuple[int, bytes]] = []
    for at in range(0, len(body), size):
        reader.feed(body[at : at + size])
        found += messages(reader)
    assert found == [(0, message) for message in sent]
    assert reader.is_empty
    assert incomplete.held == 0


def test_many_messages_of_one_read_are_cut_in_linear_time() -> None:
    reader = MessageReader()
    reader.feed(frame(b"") * 200_000)
    assert sum(1 for _ in messages(reader)) == 200_000


def test_incomplete_messages_are_limited_together() -> None:
    incomplete = Incomplete(100)
    first, second = MessageReader(None, incomplete), MessageReader(None, incomplete)
    first.feed(frame(bytes(200))[:70])
    assert first.take() is None
    assert incomplete.held == 70  # the first bytes count too
    second.feed(frame(bytes(200))[:10])
    assert second.take() is None
    second.feed(bytes(60))
    with pytest.raises(FramingError) as caught:
        second.take()
    assert caught.value.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    first.close()
    assert incomplete.held == 10
    assert second.take() is None
    assert incomplete.held == 70
    second.close()
    assert incomplete.held == 0


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate"])
def test_compressed_message_is_expanded(encoding: bytes) -> None:
    reader = MessageReader(encoding)
    reader.feed(frame(compress(b"text" * 100, encoding), COMPRESSED))
    assert reader.take() == (COMPRESSED, b"text" * 100)


def test_truncated_compression_is_refused() -> None:
    with pytest.raises(FramingError):
        expand(compress(b"text" * 100, b"gzip")[:-9], b"gzip")


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate"])
def test_bytes_after_the_compressed_message_are_refused(encoding: bytes) -> None:
    """Among them a second member of gzip (RFC 1952, section 2.2): without it, the message would be a part of what was sent."""
    for more in (b"more", compress(b"more", encoding)):
        with pytest.raises(FramingError) as caught:
            expand(compress(b"text", encoding) + more, encoding)
        assert caught.value.code == grpc.StatusCode.INTERNAL
