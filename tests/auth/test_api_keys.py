import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, text, update

from accord.policy.v1.policy_pb2 import (
    CREDENTIAL_API_KEY,
    PERMISSION_API_KEYS_WRITE,
    PERMISSION_MEMBERS_READ,
    PERMISSION_TASKS_READ,
    PERMISSION_TASKS_WRITE,
)
from accord_auth import api_keys as api_keys_module
from accord_auth.api_keys import ApiKeys, new_api_key
from accord_auth.credentials import Authenticated
from accord_auth.sessions import Sessions
from accord_auth.tokens import new_session_token, token_hash
from accord_db.engine.database import Database
from accord_db.engine.errors import Unavailable
from accord_db.engine.ids import uuid7
from accord_db.queries import accounts, api_keys, members, organizations, roles
from accord_db.queries.sessions import notify_account_changed
from accord_db.schema import ApiKey, Organization
from accord_rpc.permissions import AnyPermission, held
from tests.auth.conftest import process, until
from tests.factories import Key, Person, api_key_of, joined, organization_of, signed_in_person

HOUR = timedelta(hours=1)


class Creator(NamedTuple):
    """A user who creates keys, and the organization."""

    person: Person
    organization_id: UUID


@pytest.fixture
async def creator(database: Database) -> Creator:
    person = await signed_in_person(database)
    return Creator(person, await organization_of(database, person, role="admin"))


@pytest.fixture
async def key(database: Database, creator: Creator) -> Key:
    return await api_key_of(database, *creator)


def authenticator(sessions: Sessions) -> ApiKeys:
    return ApiKeys(sessions._database, sessions.cache)


@pytest.fixture
def ours(here: Sessions) -> ApiKeys:
    """In this process."""
    return authenticator(here)


@pytest.fixture
def theirs(there: Sessions) -> ApiKeys:
    """In another process."""
    return authenticator(there)


@pytest.fixture
async def uncached(dsn: str) -> AsyncIterator[ApiKeys]:
    async with process(dsn, cache_seconds=0) as sessions:
        yield authenticator(sessions)


async def get(database: Database, key: Key, creator: Creator) -> ApiKey:
    row = await api_keys.get_api_key(database, api_key_id=key.id, owner_id=creator.organization_id)
    assert row is not None
    return row


async def change(database: Database, key: Key, **columns: object) -> None:
    """Without a notice: a result afterwards comes from the cache."""
    assert await database.execute(update(ApiKey).where(ApiKey.id == key.id).values(columns))


async def rotate(database: Database, key: Key, creator: Creator, overlap: timedelta) -> Key | None:
    """Sends the notice. None if another rotation was first."""
    before, new = await get(database, key, creator), new_api_key()
    async with database.transaction() as tx:
        rotated = await api_keys.rotate_api_key(
            tx,
            api_key_id=key.id,
            owner_id=creator.organization_id,
            etag=before.etag,
            prefix=new[:12],
            key_hash=token_hash(new),
            overlap=overlap,
        )
        await organizations.notify_organization_changed(tx, organization_id=creator.organization_id)
    return Key(key.id, new) if rotated is not None else None


async def revoke(database: Database, key: Key, creator: Creator) -> None:
    async with database.transaction() as tx:
        await api_keys.revoke_api_key(tx, api_key_id=key.id, owner_id=creator.organization_id)
        await organizations.notify_organization_changed(tx, organization_id=creator.organization_id)


async def permissions(authenticator: ApiKeys, key: Key) -> AbstractSet[AnyPermission] | None:
    found = await authenticator.authenticate(key.key)
    return found.caller.permissions if found is not None else None


async def until_refused(authenticator: ApiKeys, key: Key) -> None:
    async with asyncio.timeout(5):
        while await authenticator.authenticate(key.key):
            await asyncio.sleep(0.005)


async def test_api_key_authenticates_its_creator_in_its_organization(ours: ApiKeys, key: Key, creator: Creator) -> None:
    found = await ours.authenticate(key.key)
    assert found is not None
    caller = found.caller
    assert (caller.account_id, caller.organization_id) == (creator.person.account_id, creator.organization_id)
    assert (caller.credential, caller.credential_id) == (CREDENTIAL_API_KEY, key.id)
    assert caller.permissions == held("admin")
    assert not caller.administrator


async def test_api_key_of_an_administrator_has_no_administrator_rights(
    ours: ApiKeys, database: Database, key: Key, creator: Creator
) -> None:
    await accounts.update_role(database, account_id=creator.person.account_id, role="administrator")
    found = await ours.authenticate(key.key)
    assert found is not None
    assert not found.caller.administrator


async def test_api_key_has_the_permissions_that_its_scopes_and_the_roles_of_its_creator_share(
    ours: ApiKeys, database: Database, creator: Creator
) -> None:
    key = await api_key_of(database, *creator, scopes=[PERMISSION_TASKS_READ, PERMISSION_API_KEYS_WRITE])
    assert await permissions(ours, key) == {PERMISSION_TASKS_READ, PERMISSION_API_KEYS_WRITE}
    none = await api_key_of(database, *creator, scopes=[])
    assert await permissions(ours, none) == frozenset()


async def test_api_key_has_the_permissions_of_its_creator_s_custom_role(
    ours: ApiKeys, database: Database, creator: Creator
) -> None:
    person = await signed_in_person(database)
    await joined(database, creator.organization_id, person, role=None)
    role = await roles.insert_role(
        database, role_id=uuid7(), organization_id=creator.organization_id, name="Reader", permissions=["tasks.read"]
    )
    await members.replace_member_roles(
        database, organization_id=creator.organization_id, account_id=person.account_id, role_ids=[role.id]
    )
    key = await api_key_of(database, person, creator.organization_id)
    assert await permissions(ours, key) == {PERMISSION_TASKS_READ}


async def test_unknown_scope_permits_nothing(ours: ApiKeys, database: Database, key: Key) -> None:
    await change(database, key, scopes=["tasks.read", "moon.land"])
    assert await permissions(ours, key) == {PERMISSION_TASKS_READ}


async def test_malformed_api_key_is_refused_without_a_query(dsn: str, key: Key) -> None:
    async with process(dsn) as sessions:
        ours = authenticator(sessions)
        await sessions._database.close()
        for malformed in (
            "",
            "ack_",
            "ack_" + "A" * 48,
            key.key[:-1],
            key.key + "A",
            key.key[:-1] + ("A" if key.key[-1] != "A" else "B"),
            key.key.replace("ack_", "acs_"),
            new_session_token(),
            "x" * 8_000,
        ):
            assert await ours.authenticate(malformed) is None
        with pytest.raises(Unavailable):
            await ours.authenticate(new_api_key())


async def test_unknown_api_key_is_refused(ours: ApiKeys) -> None:
    assert await ours.authenticate(new_api_key()) is None


async def test_only_the_prefix_of_an_api_key_is_stored_in_clear(database: Database, key: Key) -> None:
    row = str(await database.fetch_one(select(func.row_to_json(text("api_keys.*"))).select_from(ApiKey)))
    assert key.key[:12] in row
    assert key.key[:13] not in row
    assert token_hash(key.key).hex() in row


async def test_cached_api_key_needs_no_query(ours: ApiKeys, database: Database, key: Key) -> None:
    found = await ours.authenticate(key.key)
    await change(database, key, revoked_at=func.now())
    assert await ours.authenticate(key.key) is found


async def test_revoked_api_key_is_refused_in_every_process(
    ours: ApiKeys, theirs: ApiKeys, database: Database, key: Key, creator: Creator
) -> None:
    other = await api_key_of(database, *creator)
    assert await ours.authenticate(key.key)
    assert await theirs.authenticate(key.key)
    await revoke(database, key, creator)
    await until_refused(ours, key)
    await until_refused(theirs, key)
    assert await theirs.authenticate(other.key)


@pytest.mark.parametrize("column", ["expires_at", "revoked_at"])
async def test_expired_or_revoked_api_key_is_refused(ours: ApiKeys, database: Database, key: Key, column: str) -> None:
    await change(database, key, **{column: func.now()})
    assert await ours.authenticate(key.key) is None


async def test_cached_api_key_is_refused_when_it_expires(ours: ApiKeys, database: Database, creator: Creator) -> None:
    key = await api_key_of(database, *creator, lifetime=timedelta(seconds=1))
    found = await ours.authenticate(key.key)
    assert found is not None
    assert found.valid_until is not None
    await asyncio.sleep((found.valid_until - datetime.now(UTC)).total_seconds() + 0.01)
    assert await ours.authenticate(key.key) is None


async def _demote(database: Database, creator: Creator) -> None:
    async with database.transaction() as tx:
        await members.update_member_role(
            tx, organization_id=creator.organization_id, account_id=creator.person.account_id, role="member"
        )
        await organizations.notify_organization_changed(tx, organization_id=creator.organization_id)


async def test_demotion_of_the_creator_limits_the_api_key_in_every_process(
    ours: ApiKeys, theirs: ApiKeys, database: Database, key: Key, creator: Creator
) -> None:
    for finder in (ours, theirs):
        assert await permissions(finder, key) == held("admin")
    await _demote(database, creator)
    for finder in (ours, theirs):
        async with asyncio.timeout(5):
            while await permissions(finder, key) != held("member"):
                await asyncio.sleep(0.005)


async def _ban(database: Database, creator: Creator) -> None:
    async with database.transaction() as tx:
        await accounts.ban_account(tx, account_id=creator.person.account_id)
        await notify_account_changed(tx, account_id=creator.person.account_id)


async def _delete(database: Database, creator: Creator) -> None:
    async with database.transaction() as tx:
        await accounts.delete_account(tx, account_id=creator.person.account_id)
        await notify_account_changed(tx, account_id=creator.person.account_id)


async def _remove(database: Database, creator: Creator) -> None:
    async with database.transaction() as tx:
        await members.delete_member(tx, organization_id=creator.organization_id, account_id=creator.person.account_id)
        await organizations.notify_organization_changed(tx, organization_id=creator.organization_id)


async def _delete_organization(database: Database, creator: Creator) -> None:
    async with database.transaction() as tx:
        await tx.execute(
            update(Organization).where(Organization.id == creator.organization_id).values(deleted_at=func.now())
        )
        await organizations.notify_organization_changed(tx, organization_id=creator.organization_id)


@pytest.mark.parametrize("end", [_ban, _delete, _remove, _delete_organization])
async def test_api_key_is_refused_in_every_process_when_its_creator_or_organization_is_deleted(
    ours: ApiKeys,
    theirs: ApiKeys,
    database: Database,
    key: Key,
    creator: Creator,
    end: Callable[[Database, Creator], Awaitable[None]],
) -> None:
    assert await ours.authenticate(key.key)
    assert await theirs.authenticate(key.key)
    await end(database, creator)
    await until_refused(ours, key)
    await until_refused(theirs, key)
    assert await ours.recheck([key.key]) == {}


async def test_api_key_works_again_after_the_ban_of_its_creator(
    uncached: ApiKeys, database: Database, key: Key, creator: Creator
) -> None:
    account_id = creator.person.account_id
    await accounts.ban_account(database, account_id=account_id, until=datetime.now(UTC) + HOUR)
    assert await uncached.authenticate(key.key) is None
    await accounts.ban_account(database, account_id=account_id, until=datetime.now(UTC) - HOUR)
    assert await uncached.authenticate(key.key)


async def test_membership_in_another_organization_does_not_make_an_api_key_valid(
    uncached: ApiKeys, database: Database, key: Key, creator: Creator
) -> None:
    await organization_of(database, creator.person)
    await _remove(database, creator)
    assert await uncached.authenticate(key.key) is None


async def test_both_secrets_of_a_rotated_api_key_work_during_the_overlap(
    uncached: ApiKeys, database: Database, key: Key, creator: Creator
) -> None:
    new = await rotate(database, key, creator, HOUR)
    assert new is not None
    old_found, new_found = await uncached.authenticate(key.key), await uncached.authenticate(new.key)
    assert old_found is not None
    assert new_found is not None
    assert old_found.caller == new_found.caller
    assert old_found.valid_until == (await get(database, key, creator)).previous_expires_at
    assert new_found.valid_until is None
    await change(database, key, previous_expires_at=func.now())
    assert await uncached.authenticate(key.key) is None
    assert await uncached.authenticate(new.key)


async def test_overlap_ends_for_a_cached_api_key_too(
    ours: ApiKeys, database: Database, key: Key, creator: Creator
) -> None:
    overlap = timedelta(seconds=0.5)
    new = await rotate(database, key, creator, overlap)
    assert new is not None
    assert await ours.authenticate(key.key)
    await asyncio.sleep(overlap.total_seconds())
    assert await ours.authenticate(key.key) is None
    assert await ours.authenticate(new.key)


async def test_rotation_without_overlap_ends_the_old_secret_in_every_process(
    ours: ApiKeys, theirs: ApiKeys, database: Database, key: Key, creator: Creator
) -> None:
    assert await theirs.authenticate(key.key)
    new = await rotate(database, key, creator, timedelta(0))
    assert new is not None
    assert (await get(database, key, creator)).previous_key_hash is None
    assert await ours.authenticate(key.key) is None
    await until_refused(theirs, key)
    assert await theirs.authenticate(new.key)


async def test_second_rotation_ends_the_first_secret(
    uncached: ApiKeys, database: Database, key: Key, creator: Creator
) -> None:
    second = await rotate(database, key, creator, HOUR)
    assert second is not None
    third = await rotate(database, second, creator, HOUR)
    assert third is not None
    good = await uncached.recheck([key.key, second.key, third.key])
    assert good.keys() == {second.key, third.key}


@pytest.mark.parametrize("column", ["expires_at", "revoked_at"])
async def test_end_of_an_api_key_ends_both_of_its_secrets(
    uncached: ApiKeys, database: Database, key: Key, creator: Creator, column: str
) -> None:
    new = await rotate(database, key, creator, HOUR)
    assert new is not None
    await change(database, key, **{column: func.now()})
    assert await uncached.recheck([key.key, new.key]) == {}
    assert await rotate(database, key, creator, HOUR) is None


async def test_overlap_ends_no_later_than_the_api_key(
    uncached: ApiKeys, database: Database, key: Key, creator: Creator
) -> None:
    await rotate(database, key, creator, HOUR)
    expires_at = datetime.now(UTC) + HOUR / 2
    await change(database, key, expires_at=expires_at)
    found = await uncached.authenticate(key.key)
    assert found is not None
    assert found.valid_until == expires_at


async def test_one_of_50_concurrent_rotations_succeeds(database: Database, key: Key, creator: Creator) -> None:
    etag = (await get(database, key, creator)).etag
    rotated = await asyncio.gather(
        *(
            api_keys.rotate_api_key(
                database,
                api_key_id=key.id,
                owner_id=creator.organization_id,
                etag=etag,
                prefix="ack_",
                key_hash=token_hash(str(n)),
                overlap=HOUR,
            )
            for n in range(50)
        )
    )
    assert len([each for each in rotated if each is not None]) == 1


async def test_use_of_an_api_key_is_recorded_once_a_minute_and_keeps_the_etag(
    uncached: ApiKeys, database: Database, key: Key, creator: Creator
) -> None:
    made = await get(database, key, creator)
    assert made.last_used_at is None
    await uncached.authenticate(key.key)
    used = await get(database, key, creator)
    assert used.last_used_at is not None
    assert (used.etag, used.updated_at) == (made.etag, made.updated_at)
    for seconds, written in ((59, False), (60, True)):
        before = used.last_used_at - timedelta(seconds=seconds)
        await change(database, key, last_used_at=before)
        assert all(await asyncio.gather(*(uncached.authenticate(key.key) for _ in range(5))))
        assert ((await get(database, key, creator)).last_used_at != before) == written


async def test_recheck_of_an_api_key_is_not_recorded_as_use(
    ours: ApiKeys, database: Database, key: Key, creator: Creator
) -> None:
    assert await ours.recheck([key.key])
    assert (await get(database, key, creator)).last_used_at is None


async def test_recording_the_use_of_an_api_key_does_not_wait_for_its_row_lock(
    uncached: ApiKeys, database: Database, key: Key, creator: Creator
) -> None:
    async with database.transaction() as tx:
        await api_keys.revoke_api_key(tx, api_key_id=key.id, owner_id=creator.organization_id)
        async with asyncio.timeout(2):
            assert await uncached.authenticate(key.key)
    assert await uncached.authenticate(key.key) is None


async def test_result_read_before_a_revocation_is_not_cached(
    ours: ApiKeys, here: Sessions, database: Database, key: Key, creator: Creator, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, arrive, look_up = asyncio.Event(), asyncio.Event(), api_keys.list_live_api_keys

    async def held_back(db: Database, *, key_hashes: list[bytes], use_recorded_every: timedelta) -> object:
        live = await look_up(db, key_hashes=key_hashes, use_recorded_every=use_recorded_every)
        read.set()
        await arrive.wait()
        return live

    monkeypatch.setattr(api_keys_module, "list_live_api_keys", held_back)
    finding = asyncio.create_task(ours.authenticate(key.key))
    await read.wait()
    drops = here.cache._callers.drops
    await revoke(database, key, creator)
    await until(lambda: here.cache._callers.drops > drops)
    arrive.set()
    assert await finding  # the call began before the revocation; the next one must be refused
    assert await ours.authenticate(key.key) is None


@pytest.mark.parametrize("by", ["key", "creator", "organization"])
async def test_dropped_api_key_is_looked_up_again(
    ours: ApiKeys, here: Sessions, database: Database, key: Key, creator: Creator, by: str
) -> None:
    ids = {"key": key.id, "creator": creator.person.account_id, "organization": creator.organization_id}
    assert await ours.authenticate(key.key)
    await change(database, key, revoked_at=func.now())
    here.forget(uuid4())
    assert await ours.authenticate(key.key)
    here.forget(ids[by])
    assert await ours.authenticate(key.key) is None


async def test_recheck_returns_the_valid_api_keys_only(
    ours: ApiKeys, database: Database, key: Key, creator: Creator
) -> None:
    other = await api_key_of(database, *creator, scopes=[PERMISSION_TASKS_WRITE, PERMISSION_MEMBERS_READ])
    revoked = await api_key_of(database, *creator)
    await revoke(database, revoked, creator)
    good: dict[str, Authenticated] = await ours.recheck([key.key, other.key, revoked.key, new_api_key(), "nonsense"])
    assert {each: found.caller.credential_id for each, found in good.items()} == {key.key: key.id, other.key: other.id}
    assert good[other.key].caller.permissions == {PERMISSION_TASKS_WRITE, PERMISSION_MEMBERS_READ}
