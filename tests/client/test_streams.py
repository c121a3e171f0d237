"""All four kinds of call, against a service that has them: from threads, from asyncio, and in both of its styles."""

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
STREAMING_ANSWERS = ("ServerStream", "BothStream")


@pytest.fixture
async def person(database: Database) -> Person:
    return await signed_in_person(database)


@pytest.fixture
async def address(database: Database, listener: Listener) -> AsyncIterator[str]:
    server, _ = build_probe_server(database, listener, rate_limiter("async+memory://"))
    port = server.add_insecure_port("127.0.0.1:0")
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


def from_thread(address: str, credentials: Credentials, kind: str, sent: Any, **options: Any) -> list[str]:
    _, stubs = generated()
    with accord_client.open_channel(address, credentials=credentials, tls=None, methods=methods()) as channel:
        answered = getattr(stubs.ProbeServiceStub(channel), kind)(sent, **options)
        return [answer.text for answer in (answered if kind in STREAMING_ANSWERS else [answered])]


async def threaded(*arguments: Any, **options: Any) -> list[str]:
    return await asyncio.to_thread(from_thread, *arguments, **options)


async def iterated(address: str, credentials: Credentials, kind: str, sent: Any, **options: Any) -> list[str]:
    _, stubs = generated()
    async with accord_client.aio.open_channel(address, credentials=credentials, tls=None, methods=methods()) as channel:
        answered = getattr(stubs.ProbeServiceStub(channel), kind)(sent, **options)
        if kind in STREAMING_ANSWERS:
            return [answer.text async for answer in answered]
        return [(await answered).text]


async def read_and_written(address: str, credentials: Credentials, kind: str, sent: Any, **options: Any) -> list[str]:
    """As grpc.aio has it for those who want no iterators."""
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
        if kind not in STREAMING_ANSWERS:
            return [(await call).text]
        answers = []
        while (answer := await call.read()) is not grpc.aio.EOF:
            answers.append(answer.text)
        return answers


Style = Callable[..., Any]
styles = pytest.mark.parametrize("call", [threaded, iterated, read_and_written])


@styles
@pytest.mark.parametrize(
    ("kind", "texts", "answers"),
    [
        ("Unary", ["one"], ["one"]),
        ("ServerStream", ["one"], ["one", "one", "one"]),
        ("ClientStream", ["one", "two"], ["one,two"]),
        ("BothStream", ["one", "two"], ["one", "two"]),
    ],
)
async def test_all_kinds_of_call_are_answered(
    call: Style, address: str, person: Person, kind: str, texts: list[str], answers: list[str]
) -> None:
    assert await call(address, SessionToken(person.token), kind, request(kind, "", *texts)) == answers


@styles
@pytest.mark.parametrize("kind", KINDS)
async def test_all_kinds_of_call_raise_the_reason(call: Style, address: str, person: Person, kind: str) -> None:
    with pytest.raises(errors.TaskNotFound) as failed:
        await call(address, SessionToken(person.token), kind, request(kind, "refuse"))
    assert failed.value.metadata == {"task_id": "7"}


@styles
@pytest.mark.parametrize("kind", KINDS)
async def test_all_kinds_of_call_end_with_the_deadline_of_their_policy(
    call: Style, address: str, person: Person, kind: str
) -> None:
    with pytest.raises(errors.DeadlineExceeded):
        await call(address, SessionToken(person.token), kind, request(kind, "sleep"))


@styles
@pytest.mark.parametrize("kind", KINDS)
async def test_all_kinds_of_call_are_refused_without_a_good_credential(call: Style, address: str, kind: str) -> None:
    # grpc.aio itself says INTERNAL or InvalidStateError if the refusal overtakes the first request of a stream.
    overtaken = (errors.Internal, asyncio.InvalidStateError) if kind in STREAMING_REQUESTS else ()
    with pytest.raises((errors.CredentialInvalid, *overtaken)):
        await call(address, SessionToken("acs_nonsense"), kind, request(kind))


async def test_answers_come_while_requests_are_sent(address: str, person: Person) -> None:
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


async def test_stream_that_is_cancelled_ends(address: str, person: Person) -> None:
    messages, stubs = generated()
    credentials = SessionToken(person.token)
    async with accord_client.aio.open_channel(address, credentials=credentials, tls=None, methods=methods()) as channel:
        stream = stubs.ProbeServiceStub(channel).ServerStream(messages.ProbeRequest(act="sleep"), timeout=30)
        assert (await stream.read()) is not grpc.aio.EOF
        assert stream.cancel()
        with pytest.raises(asyncio.CancelledError):
            while await stream.read() is not grpc.aio.EOF:
                pass


async def test_stream_that_is_cancelled_from_a_thread_ends(address: str, person: Person) -> None:
    messages, stubs = generated()

    def cancelled() -> None:
        with accord_client.open_channel(
            address, credentials=SessionToken(person.token), tls=None, methods=methods()
        ) as channel:
            stream = stubs.ProbeServiceStub(channel).ServerStream(messages.ProbeRequest(act="sleep"), timeout=30)
            next(stream)
            stream.cancel()
            for _ in stream:
                pass

    with pytest.raises(errors.Cancelled):
        await asyncio.to_thread(cancelled)
