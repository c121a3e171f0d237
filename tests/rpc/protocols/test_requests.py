"""Requests of gRPC with another number of messages than the method takes, and their memory, by raw HTTP/2."""

import asyncio

import pytest

from accord_rpc.protocols.framing import INCOMPLETE
from tests.api.http2 import Wire, connected
from tests.rpc.protocols.faces import KEY, SERVICE, Service, pb
from tests.rpc.protocols.test_connect import frame

INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNIMPLEMENTED = 3, 8, 12
OWN = [("authorization", KEY)]
MESSAGE = pb.TextRequest(text="a").SerializeToString()


async def status(wire: Wire, method: str, body: bytes) -> int | None:
    return (await wire.call(f"/{SERVICE}/{method}", body, OWN)).status


@pytest.mark.parametrize("method", ["SendText", "ListTexts"])
async def test_method_with_one_message_refuses_a_second_one(service: Service, address: str, method: str) -> None:
    async with connected(address) as wire:
        assert await status(wire, method, frame(MESSAGE) * 2) == UNIMPLEMENTED
        assert await status(wire, method, frame(MESSAGE) + b"\0\0") == INVALID_ARGUMENT
        assert service.entered == 0
        assert await status(wire, method, frame(MESSAGE)) == 0
        assert await status(wire, "JoinTexts", frame(MESSAGE) * 2) == 0


@pytest.mark.parametrize("body", [b"\0\0", frame(MESSAGE)[:-1], frame(MESSAGE) + b"\0"])
async def test_stream_that_ends_within_a_message_is_refused(address: str, body: bytes) -> None:
    async with connected(address) as wire:
        assert await status(wire, "JoinTexts", body) == INVALID_ARGUMENT


async def test_message_whose_request_has_not_ended_counts_as_memory(
    service: Service, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(INCOMPLETE, "limit", 50)
    message = pb.TextRequest(text="a" * 30).SerializeToString()
    async with connected(address) as wire:
        first = wire.begin(f"/{SERVICE}/SendText", OWN)
        wire.send(first, frame(message))
        async with asyncio.timeout(5):
            while INCOMPLETE.held != len(message):
                await asyncio.sleep(0.001)
        assert service.entered == 0
        second = wire.begin(f"/{SERVICE}/SendText", OWN)
        wire.send(second, frame(message))
        assert (await wire.response(second)).status == RESOURCE_EXHAUSTED
        wire.send(first, b"", end_stream=True)
        assert (await wire.response(first)).status == 0
        assert INCOMPLETE.held == 0
