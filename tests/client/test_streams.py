"""The four kinds of call, blocking and with asyncio, with its iterators and with its read and write methods."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

import accord_client
import accord_client.aio
from accord_client import Credentials, SessionToken, errors
from accord_client.contract import Method, methods_of
from accord_db.engine.database import Database
from accord_db.engine.listen import Listener
from accord_rpc.pipeline.rate_limits import rate_limiter
from tests.api.probe import build_probe_server, generated
from tests.factories import Person, signed_in_person

KINDS = ("Unary", "ServerStream", "ClientStream", "BothStream")
STREAMING_REQUESTS = ("ClientStream", "BothStream")
STREAMING_RESPONSES = ("ServerStream", "BothStream")


@pytest.fixture
async def person(database: Database) -> Person:
    return await signed_in_person(database)


@pytest.fixture
async def address(database: Database, listener: Listener) -> AsyncIterator[str]:
    server, _ = build_probe_server(database, listener, rate_limiter("async+memory://"))
    port = server.listen()
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


def methods() -> dict[str, Method]:
    messages, _ = generated()
    return dict(methods_of([messages.DESCRIPTOR.services_by_name["ProbeService"]]))


def request(kind: str, act: str = "", *texts: str) -> Any:
    messages, _ = generated()
    requests = [messages.ProbeRequest(act=act, text=text) for text in texts or ("one",)]
    return iter(requests) if kind in STREAMING_REQUESTS else requests[0]


def call_blocking(address: str, credentials: Credentials, kind: str, sent: Any, **options: Any) -> list[str]:
    _, stubs = generated()
    with accord_client.open_channel(address, credentials=credentials, tls=None, methods=methods()) as channel:
        call = getattr(stubs.ProbeServiceStub(channel), kind)(sent, **options)
        return [response.text for response in (call if kind in STREAMING_RESPONSES else [call])]


async def on_thread(*arguments: Any, **options: Any) -> list[str]:
    return await asyncio.to_thread(call_blocking, *arguments, **options)


async def with_iterators(address: str, credentials: Credentials, kind: str, sent: Any, **options: Any) -> list[str]:
    _, stubs = generated()
    async with accord_client.aio.open_channel(address, credentials=credentials, tls=None, methods=methods()) as channel:
        call = getattr(stubs.ProbeServiceStub(channel), kind)(sent, **options)
        if kind in STREAMING_RESPONSES:
            return [response.text async for response in call]
        return [(await call).text]


async def with_read_and_write(
    address: str, credentials: Credentials, kind: str, sent: Any, **options: Any
) -> list[str]:
    _, stubs = generated()
    async with accord_client.aio.open_channel(address, credentials=credentials, tls=None, methods=methods()) as channel:
        stub = getattr(stubs.ProbeServiceStub(channel), kind)
        if kind not in STREAMING_REQUESTS:
            call = stub(sent, **options)
        else:
            call = stub(**options)
            for message in sent:
                await call.write(message)
            await call.done_writing()
        if kind not in STREAMING_RESPONSES:
            return [(await call).text]
        texts = []
        while (response := await call.read()) is not grpc.aio.EOF:
            texts.append(response.text)
        return texts


Style = Callable[..., Any]
styles = pytest.mark.parametrize("call", [on_thread, with_iterators, with_read_and_write])


@styles
@pytest.mark.parametrize(
    ("kind", "texts", "responses"),
    [
        ("Unary", ["one"], ["one"]),
        ("ServerStream", ["one"], ["one", "one", "one"]),
        ("ClientStream", ["one", "two"], ["one,two"]),
        ("BothStream", ["one", "two"], ["one", "two"]),
    ],
)
async def test_every_kind_of_call_returns_its_responses(
    call: Style, address: str, person: Person, kind: str, texts: list[str], responses: list[str]
) -> None:
    assert await call(address, SessionToken(person.token), kind, request(kind, "", *texts)) == responses


@styles
@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_call_raises_the_reason(call: Style, address: str, person: Person, kind: str) -> None:
    with pytest.raises(errors.TaskNotFound) as failed:
        await call(address, SessionToken(person.token), kind, request(kind, "refuse"))
    assert failed.value.metadata == {"task_id": "7"}


@styles
@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_call_ends_at_the_deadline_of_its_policy(
    call: Style, address: str, person: Person, kind: str
) -> None:
    with pytest.raises(errors.DeadlineExceeded):
        await call(address, SessionToken(person.token), kind, request(kind, "sleep"))


@styles
@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_call_fails_with_an_invalid_credential(call: Style, address: str, kind: str) -> None:
    # grpc.aio itself raises INTERNAL or InvalidStateError if the status arrives before the first request is sent.
    early = (errors.Internal, asyncio.InvalidStateError) if kind in STREAMING_REQUESTS else ()
    with pytest.raises((errors.CredentialInvalid, *early)):
        await call(address, SessionToken("acs_nonsense"), kind, request(kind))


async def test_responses_arrive_while_requests_are_sent(address: str, person: Person) -> None:
    messages, stubs = generated()
    credentials = SessionToken(person.token)
    async with accord_client.aio.open_channel(address, credentials=credentials, tls=None, methods=methods()) as channel:
        stream = stubs.ProbeServiceStub(channel).BothStream()
        for text in ("one", "two", "three"):
            await stream.write(messages.ProbeRequest(text=text))
            assert (await stream.read()).text == text
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
        assert await stream.code() is grpc.StatusCode.OK


async def test_cancelled_stream_ends(address: str, person: Person) -> None:
    messages, stubs = generated()
    credentials = SessionToken(person.token)
    async with accord_client.aio.open_channel(address, credentials=credentials, tls=None, methods=methods()) as channel:
        stream = stubs.ProbeServiceStub(channel).ServerStream(messages.ProbeRequest(act="sleep"), timeout=30)
        assert (await stream.read()) is not grpc.aio.EOF
        assert stream.cancel()
        with pytest.raises(asyncio.CancelledError):
            while await stream.read() is not grpc.aio.EOF:
                pass


async def test_cancelled_blocking_stream_ends(address: str, person: Person) -> None:
    messages, stubs = generated()

    def cancel_stream() -> None:
        with accord_client.open_channel(
            address, credentials=SessionToken(person.token), tls=None, methods=methods()
        ) as channel:
            stream = stubs.ProbeServiceStub(channel).ServerStream(messages.ProbeRequest(act="sleep"), timeout=30)
            next(stream)
            stream.cancel()
            for _ in stream:
                pass

    with pytest.raises(errors.Cancelled):
        await asyncio.to_thread(cancel_stream)
