"""Streams that are open when their session ends, of every kind that streams."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from accord_auth import streams
from accord_db.database import Database
from accord_db.listen import Listener
from accord_db.queries import accounts, sessions
from tests.api.conftest import refusal
from tests.api.probe import ProbeClient, generated
from tests.conftest import change
from tests.factories import Person, signed_in_person

KINDS = ("ServerStream", "ClientStream", "BothStream")
AS_LONG_AS_MAY_BE = 30  # seconds


@pytest.fixture
async def listening(probe: ProbeClient, listener: Listener) -> ProbeClient:
    await listener.start()
    while not listener.connected:
        await asyncio.sleep(0.002)
    return probe


async def begin(probe: ProbeClient, kind: str, person: Person) -> Awaitable[object]:
    """A stream that is open, and whose handler runs; what is returned ends with it."""
    messages, stubs = generated()
    stub, entered = getattr(stubs.ProbeServiceStub(probe.channel), kind), probe.probe.entered
    options: dict[str, Any] = {"metadata": person.headers, "timeout": AS_LONG_AS_MAY_BE}
    if kind == "ServerStream":
        call = stub(messages.ProbeRequest(act="sleep"), **options)
        answers = 3
    else:
        call = stub(**options)
        await call.write(messages.ProbeRequest(text="first"))
        answers = 1 if kind == "BothStream" else 0
    for _ in range(answers):
        await call.read()
    while probe.probe.entered == entered:
        await asyncio.sleep(0.002)
    return ended(call, kind)


async def ended(call: Any, kind: str) -> None:
    """Raises what the stream was refused with."""
    if kind == "ClientStream":
        await call
    while await call.read() is not grpc.aio.EOF:
        pass


async def is_ended(stream: Awaitable[object]) -> bool:
    refused = await refusal(stream)
    return (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID")


async def _revoke(database: Database, person: Person) -> None:
    await sessions.revoke_session(database, session_id=person.session_id, account_id=person.account_id)


async def _ban(database: Database, person: Person) -> None:
    async with database.transaction() as tx:
        await accounts.ban_account(tx, email=person.email)
        await sessions.revoke_sessions_of_account(tx, account_id=person.account_id)


async def _delete(database: Database, person: Person) -> None:
    async with database.transaction() as tx:
        await accounts.delete_account(tx, account_id=person.account_id)
        await sessions.revoke_sessions_of_account(tx, account_id=person.account_id)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", [_revoke, _ban, _delete])
async def test_stream_ends_with_its_session_and_those_of_others_go_on(
    listening: ProbeClient, database: Database, kind: str, end: Callable[[Database, Person], Awaitable[None]]
) -> None:
    theirs = asyncio.ensure_future(await begin(listening, kind, await signed_in_person(database)))
    mine = await begin(listening, kind, listening.person)
    await end(database, listening.person)
    assert await is_ended(mine)
    assert not theirs.done()
    theirs.cancel()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("column", ["expires_at", "idle_expires_at"])
async def test_stream_ends_when_its_session_expires(listening: ProbeClient, dsn: str, kind: str, column: str) -> None:
    change(dsn, f"UPDATE sessions SET {column} = now() + interval '1 second'")
    assert await is_ended(await begin(listening, kind, listening.person))


@pytest.mark.parametrize("kind", KINDS)
async def test_stream_ends_with_its_session_while_nothing_can_be_heard(
    probe: ProbeClient, database: Database, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listener was never started."""
    monkeypatch.setattr(streams, "_LOOK_AGAIN_UNTOLD", 0.2)
    stream = await begin(probe, kind, probe.person)
    await _revoke(database, probe.person)
    assert await is_ended(stream)


async def test_handler_of_a_stream_that_ends_is_cancelled(listening: ProbeClient, database: Database) -> None:
    stream = await begin(listening, "ServerStream", listening.person)
    await _revoke(database, listening.person)
    assert await is_ended(stream)
    async with asyncio.timeout(5):
        await listening.probe.cancelled.wait()


async def test_call_that_does_not_stream_goes_on_to_its_end(listening: ProbeClient, database: Database) -> None:
    call = asyncio.create_task(listening.call("Unary", "wait", text="done"))
    while not listening.probe.entered:
        await asyncio.sleep(0.002)
    await _revoke(database, listening.person)
    await asyncio.sleep(0.2)
    listening.probe.go_on.set()
    assert await call == ["done"]


@pytest.mark.parametrize("kind", KINDS)
async def test_stream_that_outlives_its_deadline_is_told_so(listening: ProbeClient, kind: str) -> None:
    """Both ways to end a stream cancel it: each is told from the other."""
    messages, stubs = generated()
    stub = getattr(stubs.ProbeServiceStub(listening.channel), kind)
    request = [messages.ProbeRequest(act="sleep")] if kind == "ServerStream" else []
    call = stub(*request, metadata=listening.person.headers)
    assert (await refusal(ended(call, kind))).reason == "DEADLINE_EXCEEDED"
