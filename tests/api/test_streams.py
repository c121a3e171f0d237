"""Open streams of every kind end when their caller loses access."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import grpc
import pytest

from accord_auth import streams
from accord_auth.api_keys import new_api_key
from accord_auth.tokens import token_hash
from accord_db.engine.database import Database
from accord_db.engine.listen import Listener
from accord_db.queries import accounts, api_keys, members, organizations, sessions
from tests.api.conftest import refusal
from tests.api.probe import ProbeClient, generated
from tests.conftest import change
from tests.factories import Key, Person, activate, api_key_of, joined, organization_of, signed_in_person

KINDS = ("ServerStream", "ClientStream", "BothStream")
TIMEOUT = 30  # seconds


@pytest.fixture
async def listening(probe: ProbeClient, listener: Listener) -> ProbeClient:
    await listener.start()
    while not listener.connected:
        await asyncio.sleep(0.002)
    return probe


async def open_stream(probe: ProbeClient, kind: str, person: Person | Key) -> Awaitable[object]:
    """Opens a stream and waits until its handler runs. The result completes when the stream ends."""
    messages, stubs = generated()
    stub, entered = getattr(stubs.ProbeServiceStub(probe.channel), kind), probe.probe.entered
    options: dict[str, Any] = {"metadata": person.headers, "timeout": TIMEOUT}
    if kind in ("ServerStream", "Watch"):
        call = stub(messages.ProbeRequest(act="sleep"), **options)
        messages_to_read = 3
    else:
        call = stub(**options)
        await call.write(messages.ProbeRequest(text="first"))
        messages_to_read = 1 if kind == "BothStream" else 0
    for _ in range(messages_to_read):
        await call.read()
    while probe.probe.entered == entered:
        await asyncio.sleep(0.002)
    return end_of(call, kind)


async def end_of(call: Any, kind: str) -> None:
    """Waits for the end of the stream. Raises its error."""
    if kind == "ClientStream":
        await call
    while await call.read() is not grpc.aio.EOF:
        pass


async def ends_with_invalid_credential(stream: Awaitable[object]) -> bool:
    refused = await refusal(stream)
    return (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID")


async def _revoke(database: Database, person: Person) -> None:
    await sessions.revoke_session(database, session_id=person.session_id, account_id=person.account_id)


async def _ban(database: Database, person: Person) -> None:
    async with database.transaction() as tx:
        await accounts.ban_account(tx, account_id=person.account_id)
        await sessions.revoke_sessions_of_account(tx, account_id=person.account_id)


async def _delete(database: Database, person: Person) -> None:
    async with database.transaction() as tx:
        await accounts.delete_account(tx, account_id=person.account_id)
        await sessions.revoke_sessions_of_account(tx, account_id=person.account_id)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", [_revoke, _ban, _delete])
async def test_stream_ends_with_its_session_and_streams_of_others_continue(
    listening: ProbeClient, database: Database, kind: str, end: Callable[[Database, Person], Awaitable[None]]
) -> None:
    theirs = asyncio.ensure_future(await open_stream(listening, kind, await signed_in_person(database)))
    mine = await open_stream(listening, kind, listening.person)
    await end(database, listening.person)
    assert await ends_with_invalid_credential(mine)
    assert not theirs.done()
    theirs.cancel()


@pytest.fixture
async def organization_id(listening: ProbeClient, database: Database) -> UUID:
    """An organization with the caller as a member. It is active in their session."""
    organization_id = await organization_of(database, listening.person)
    await activate(database, listening.person, organization_id)
    return organization_id


@pytest.fixture
async def key(listening: ProbeClient, database: Database, organization_id: UUID) -> Key:
    return await api_key_of(database, listening.person, organization_id)


async def _revoke_key(database: Database, key: Key, organization_id: UUID) -> None:
    async with database.transaction() as tx:
        await api_keys.revoke_api_key(tx, api_key_id=key.id, owner_id=organization_id)
        await organizations.notify_organization_changed(tx, organization_id=organization_id)


async def _leave(database: Database, person: Person, organization_id: UUID) -> None:
    async with database.transaction() as tx:
        await members.delete_member(tx, organization_id=organization_id, account_id=person.account_id)
        await organizations.notify_organization_changed(tx, organization_id=organization_id)


async def _demote(database: Database, person: Person, organization_id: UUID) -> None:
    """Removes the role of the member."""
    async with database.transaction() as tx:
        await members.update_member_role(tx, organization_id=organization_id, account_id=person.account_id, role=None)
        await organizations.notify_organization_changed(tx, organization_id=organization_id)


async def end_reason(stream: Awaitable[object]) -> str:
    return (await refusal(stream)).reason


@pytest.mark.parametrize("kind", [*KINDS, "Watch"])
async def test_stream_of_an_api_key_ends_with_it_and_streams_of_other_keys_continue(
    listening: ProbeClient, database: Database, organization_id: UUID, key: Key, kind: str
) -> None:
    other = await api_key_of(database, listening.person, organization_id)
    others = asyncio.ensure_future(await open_stream(listening, kind, other))
    stream = await open_stream(listening, kind, key)
    await _revoke_key(database, key, organization_id)
    assert await ends_with_invalid_credential(stream)
    assert not others.done()
    others.cancel()


@pytest.mark.parametrize("kind", KINDS)
async def test_stream_of_an_api_key_ends_when_the_key_expires(
    listening: ProbeClient, database: Database, organization_id: UUID, kind: str
) -> None:
    key = await api_key_of(database, listening.person, organization_id, lifetime=timedelta(seconds=1))
    assert await ends_with_invalid_credential(await open_stream(listening, kind, key))


async def test_stream_with_the_old_secret_of_a_rotated_api_key_ends_with_the_overlap(
    listening: ProbeClient, database: Database, organization_id: UUID, key: Key
) -> None:
    stream = await open_stream(listening, "Watch", key)
    made = await api_keys.get_api_key(database, api_key_id=key.id, owner_id=organization_id)
    assert made is not None
    async with database.transaction() as tx:
        new, overlap = new_api_key(), timedelta(seconds=1)
        await api_keys.rotate_api_key(
            tx,
            api_key_id=key.id,
            owner_id=organization_id,
            etag=made.etag,
            prefix=new[:12],
            key_hash=token_hash(new),
            overlap=overlap,
        )
        await organizations.notify_organization_changed(tx, organization_id=organization_id)
    new_stream = asyncio.ensure_future(await open_stream(listening, "Watch", Key(key.id, new)))
    assert await ends_with_invalid_credential(stream)
    assert not new_stream.done()
    new_stream.cancel()


@pytest.mark.parametrize("credential", ["session", "key"])
async def test_stream_ends_when_its_caller_loses_the_permission(
    listening: ProbeClient, database: Database, organization_id: UUID, key: Key, credential: str
) -> None:
    """A stream whose method requires no permission continues."""
    caller = key if credential == "key" else listening.person
    unpermitted = asyncio.ensure_future(await open_stream(listening, "ServerStream", caller))
    stream = await open_stream(listening, "Watch", caller)
    await _demote(database, listening.person, organization_id)
    assert await end_reason(stream) == "PERMISSION_DENIED"
    assert not unpermitted.done()
    unpermitted.cancel()


@pytest.mark.parametrize(("credential", "reason"), [("session", "PERMISSION_DENIED"), ("key", "CREDENTIAL_INVALID")])
async def test_stream_ends_when_its_caller_leaves_the_organization(
    listening: ProbeClient, database: Database, organization_id: UUID, key: Key, credential: str, reason: str
) -> None:
    other = await signed_in_person(database)
    await joined(database, organization_id, other)
    await activate(database, other, organization_id)
    theirs = asyncio.ensure_future(await open_stream(listening, "Watch", other))
    stream = await open_stream(listening, "Watch", key if credential == "key" else listening.person)
    await _leave(database, listening.person, organization_id)
    assert await end_reason(stream) == reason
    assert not theirs.done()
    theirs.cancel()


async def test_stream_ends_when_its_session_switches_organization_and_other_streams_continue(
    listening: ProbeClient, database: Database, organization_id: UUID, key: Key
) -> None:
    """Otherwise the stream would continue in the previous organization, without a check that the caller is still a member."""
    key_stream = asyncio.ensure_future(await open_stream(listening, "Watch", key))
    for organization in (await organization_of(database, listening.person), None):
        stream = await open_stream(listening, "Watch", listening.person)
        await activate(database, listening.person, organization)
        assert await end_reason(stream) == "PERMISSION_DENIED"
    assert not key_stream.done()
    key_stream.cancel()


async def test_stream_continues_after_a_role_change_that_keeps_the_permission(
    listening: ProbeClient, database: Database, organization_id: UUID, key: Key
) -> None:
    streams = [asyncio.ensure_future(await open_stream(listening, "Watch", each)) for each in (listening.person, key)]
    async with database.transaction() as tx:
        await members.update_member_role(
            tx, organization_id=organization_id, account_id=listening.person.account_id, role="member"
        )
        await organizations.notify_organization_changed(tx, organization_id=organization_id)
    await asyncio.sleep(0.3)
    assert not any(stream.done() for stream in streams)
    for stream in streams:
        stream.cancel()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("column", ["expires_at", "idle_expires_at"])
async def test_stream_ends_when_its_session_expires(listening: ProbeClient, dsn: str, kind: str, column: str) -> None:
    change(dsn, f"UPDATE sessions SET {column} = now() + interval '1 second'")
    assert await ends_with_invalid_credential(await open_stream(listening, kind, listening.person))


@pytest.mark.parametrize("kind", KINDS)
async def test_stream_ends_with_its_session_without_notifications(
    probe: ProbeClient, database: Database, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listener is not started, so the stream checks its session at intervals."""
    monkeypatch.setattr(streams, "_RECHECK_EVERY_WITHOUT_NOTICES", 0.2)
    stream = await open_stream(probe, kind, probe.person)
    await _revoke(database, probe.person)
    assert await ends_with_invalid_credential(stream)


async def test_handler_of_a_stream_that_ends_is_cancelled(listening: ProbeClient, database: Database) -> None:
    stream = await open_stream(listening, "ServerStream", listening.person)
    await _revoke(database, listening.person)
    assert await ends_with_invalid_credential(stream)
    async with asyncio.timeout(5):
        await listening.probe.cancelled.wait()


async def test_unary_call_completes_after_its_session_ends(listening: ProbeClient, database: Database) -> None:
    call = asyncio.create_task(listening.call("Unary", "wait", text="done"))
    while not listening.probe.entered:
        await asyncio.sleep(0.002)
    await _revoke(database, listening.person)
    await asyncio.sleep(0.2)
    listening.probe.go_on.set()
    assert await call == ["done"]


@pytest.mark.parametrize("kind", KINDS)
async def test_stream_ends_with_deadline_exceeded_at_its_deadline(listening: ProbeClient, kind: str) -> None:
    """A stream is cancelled at its deadline and at the end of its session. The reasons differ."""
    messages, stubs = generated()
    stub = getattr(stubs.ProbeServiceStub(listening.channel), kind)
    request = [messages.ProbeRequest(act="sleep")] if kind == "ServerStream" else []
    call = stub(*request, metadata=listening.person.headers)
    assert (await refusal(end_of(call, kind))).reason == "DEADLINE_EXCEEDED"
