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


class Maker(NamedTuple):
    """Whoever makes keys, and where."""

    person: Person
    organization_id: UUID


@pytest.fixture
async def maker(database: Database) -> Maker:
    person = await signed_in_person(database)
    return Maker(person, await organization_of(database, person, role="admin"))


@pytest.fixture
async def key(database: Database, maker: Maker) -> Key:
    return await api_key_of(database, *maker)


def finder(sessions: Sessions) -> ApiKeys:
    return ApiKeys(sessions._database, sessions.cache)


@pytest.fixture
def ours(here: Sessions) -> ApiKeys:
    """Of this process."""
    return finder(here)


@pytest.fixture
def theirs(there: Sessions) -> ApiKeys:
    """Of another one."""
    return finder(there)


@pytest.fixture
async def unremembering(dsn: str) -> AsyncIterator[ApiKeys]:
    async with process(dsn, cache_seconds=0) as sessions:
        yield finder(sessions)


async def get(database: Database, key: Key, maker: Maker) -> ApiKey:
    row = await api_keys.get_api_key(database, api_key_id=key.id, organization_id=maker.organization_id)
    assert row is not None
    return row


async def change(database: Database, key: Key, **columns: object) -> None:
    """Without a notice: whoever still finds the key has not asked the database."""
    assert await database.execute(update(ApiKey).where(ApiKey.id == key.id).values(columns))


async def rotate(database: Database, key: Key, maker: Maker, overlap: timedelta) -> Key | None:
    """Told to every process. None if another was first."""
    before, new = await get(database, key, maker), new_api_key()
    async with database.transaction() as tx:
        rotated = await api_keys.rotate_api_key(
            tx,
            api_key_id=key.id,
            organization_id=maker.organization_id,
            etag=before.etag,
            prefix=new[:12],
            key_hash=token_hash(new),
            overlap=overlap,
        )
        await organizations.notify_organization_changed(tx, organization_id=maker.organization_id)
    return Key(key.id, new) if rotated is not None else None


async def revoke(database: Database, key: Key, maker: Maker) -> None:
    async with database.transaction() as tx:
        await api_keys.revoke_api_key(tx, api_key_id=key.id, organization_id=maker.organization_id)
        await organizations.notify_organization_changed(tx, organization_id=maker.organization_id)


async def permissions(finder: ApiKeys, key: Key) -> AbstractSet[AnyPermission] | None:
    found = await finder.authenticate(key.key)
    return found.caller.permissions if found is not None else None


async def until_refused(finder: ApiKeys, key: Key) -> None:
    async with asyncio.timeout(5):
        while await finder.authenticate(key.key):
            await asyncio.sleep(0.005)


async def test_a_key_stands_for_whoever_made_it_in_its_organization(ours: ApiKeys, key: Key, maker: Maker) -> None:
    found = await ours.authenticate(key.key)
    assert found is not None
    caller = found.caller
    assert (caller.account_id, caller.organization_id) == (maker.person.account_id, maker.organization_id)
    assert (caller.credential, caller.credential_id) == (CREDENTIAL_API_KEY, key.id)
    assert caller.permissions == held("admin")
    assert not caller.administrator


async def test_a_key_of_an_administrator_does_not_administrate(
    ours: ApiKeys, database: Database, key: Key, maker: Maker
) -> None:
    await accounts.update_role(database, account_id=maker.person.account_id, role="administrator")
    found = await ours.authenticate(key.key)
    assert found is not None
    assert not found.caller.administrator


async def test_a_key_may_do_what_its_scopes_and_the_roles_of_its_maker_both_permit(
    ours: ApiKeys, database: Database, maker: Maker
) -> None:
    key = await api_key_of(database, *maker, scopes=[PERMISSION_TASKS_READ, PERMISSION_API_KEYS_WRITE])
    assert await permissions(ours, key) == {PERMISSION_TASKS_READ, PERMISSION_API_KEYS_WRITE}
    none = await api_key_of(database, *maker, scopes=[])
    assert await permissions(ours, none) == frozenset()


async def test_a_key_of_whoever_has_a_role_of_the_organizations_own_may_do_what_that_permits(
    ours: ApiKeys, database: Database, maker: Maker
) -> None:
    person = await signed_in_person(database)
    await joined(database, maker.organization_id, person, role=None)
    role = await roles.insert_role(
        database, role_id=uuid7(), organization_id=maker.organization_id, name="Reader", permissions=["tasks.read"]
    )
    await members.replace_member_roles(
        database, organization_id=maker.organization_id, account_id=person.account_id, role_ids=[role.id]
    )
    key = await api_key_of(database, person, maker.organization_id)
    assert await permissions(ours, key) == {PERMISSION_TASKS_READ}


async def test_a_scope_that_this_release_does_not_know_permits_nothing(
    ours: ApiKeys, database: Database, key: Key
) -> None:
    await change(database, key, scopes=["tasks.read", "moon.land"])
    assert await permissions(ours, key) == {PERMISSION_TASKS_READ}


async def test_a_malformed_key_is_refused_without_asking_the_database(dsn: str, key: Key) -> None:
    async with process(dsn) as sessions:
        ours = finder(sessions)
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


async def test_an_unknown_key_finds_nothing(ours: ApiKeys) -> None:
    assert await ours.authenticate(new_api_key()) is None


async def test_the_key_is_kept_nowhere_but_for_its_first_characters(database: Database, key: Key) -> None:
    row = str(await database.fetch_one(select(func.row_to_json(text("api_keys.*"))).select_from(ApiKey)))
    assert key.key[:12] in row
    assert key.key[:13] not in row
    assert token_hash(key.key).hex() in row


async def test_a_key_found_again_costs_no_question(ours: ApiKeys, database: Database, key: Key) -> None:
    found = await ours.authenticate(key.key)
    await change(database, key, revoked_at=func.now())
    assert await ours.authenticate(key.key) is found


async def test_a_revoked_key_is_refused_in_every_process(
    ours: ApiKeys, theirs: ApiKeys, database: Database, key: Key, maker: Maker
) -> None:
    other = await api_key_of(database, *maker)
    assert await ours.authenticate(key.key)
    assert await theirs.authenticate(key.key)
    await revoke(database, key, maker)
    await until_refused(ours, key)
    await until_refused(theirs, key)
    assert await theirs.authenticate(other.key)


@pytest.mark.parametrize("column", ["expires_at", "revoked_at"])
async def test_a_key_that_is_over_is_refused(ours: ApiKeys, database: Database, key: Key, column: str) -> None:
    await change(database, key, **{column: func.now()})
    assert await ours.authenticate(key.key) is None


async def test_a_key_that_expires_while_it_is_remembered_is_refused(
    ours: ApiKeys, database: Database, maker: Maker
) -> None:
    key = await api_key_of(database, *maker, lifetime=timedelta(seconds=1))
    found = await ours.authenticate(key.key)
    assert found is not None
    assert found.valid_until is not None
    await asyncio.sleep((found.valid_until - datetime.now(UTC)).total_seconds() + 0.01)
    assert await ours.authenticate(key.key) is None


async def _demote(database: Database, maker: Maker) -> None:
    async with database.transaction() as tx:
        await members.update_member_role(
            tx, organization_id=maker.organization_id, account_id=maker.person.account_id, role="member"
        )
        await organizations.notify_organization_changed(tx, organization_id=maker.organization_id)


async def test_a_key_whose_maker_is_demoted_holds_less_in_every_process(
    ours: ApiKeys, theirs: ApiKeys, database: Database, key: Key, maker: Maker
) -> None:
    for finder in (ours, theirs):
        assert await permissions(finder, key) == held("admin")
    await _demote(database, maker)
    for finder in (ours, theirs):
        async with asyncio.timeout(5):
            while await permissions(finder, key) != held("member"):
                await asyncio.sleep(0.005)


async def _ban(database: Database, maker: Maker) -> None:
    async with database.transaction() as tx:
        await accounts.ban_account(tx, account_id=maker.person.account_id)
        await notify_account_changed(tx, account_id=maker.person.account_id)


async def _delete(database: Database, maker: Maker) -> None:
    async with database.transaction() as tx:
        await accounts.delete_account(tx, account_id=maker.person.account_id)
        await notify_account_changed(tx, account_id=maker.person.account_id)


async def _remove(database: Database, maker: Maker) -> None:
    async with database.transaction() as tx:
        await members.delete_member(tx, organization_id=maker.organization_id, account_id=maker.person.account_id)
        await organizations.notify_organization_changed(tx, organization_id=maker.organization_id)


async def _delete_organization(database: Database, maker: Maker) -> None:
    async with database.transaction() as tx:
        await tx.execute(
            update(Organization).where(Organization.id == maker.organization_id).values(deleted_at=func.now())
        )
        await organizations.notify_organization_changed(tx, organization_id=maker.organization_id)


@pytest.mark.parametrize("end", [_ban, _delete, _remove, _delete_organization])
async def test_a_key_is_refused_in_every_process_when_its_maker_or_organization_is_gone(
    ours: ApiKeys,
    theirs: ApiKeys,
    database: Database,
    key: Key,
    maker: Maker,
    end: Callable[[Database, Maker], Awaitable[None]],
) -> None:
    assert await ours.authenticate(key.key)
    assert await theirs.authenticate(key.key)
    await end(database, maker)
    await until_refused(ours, key)
    await until_refused(theirs, key)
    assert await ours.recheck([key.key]) == {}


async def test_a_key_whose_maker_was_banned_for_a_while_is_good_again(
    unremembering: ApiKeys, database: Database, key: Key, maker: Maker
) -> None:
    account_id = maker.person.account_id
    await accounts.ban_account(database, account_id=account_id, until=datetime.now(UTC) + HOUR)
    assert await unremembering.authenticate(key.key) is None
    await accounts.ban_account(database, account_id=account_id, until=datetime.now(UTC) - HOUR)
    assert await unremembering.authenticate(key.key)


async def test_whoever_is_a_member_elsewhere_has_no_key_here(
    unremembering: ApiKeys, database: Database, key: Key, maker: Maker
) -> None:
    await organization_of(database, maker.person)
    await _remove(database, maker)
    assert await unremembering.authenticate(key.key) is None


async def test_of_a_rotated_key_both_are_good_for_the_overlap(
    unremembering: ApiKeys, database: Database, key: Key, maker: Maker
) -> None:
    new = await rotate(database, key, maker, HOUR)
    assert new is not None
    old_found, new_found = await unremembering.authenticate(key.key), await unremembering.authenticate(new.key)
    assert old_found is not None
    assert new_found is not None
    assert old_found.caller == new_found.caller
    assert old_found.valid_until == (await get(database, key, maker)).previous_expires_at
    assert new_found.valid_until is None
    await change(database, key, previous_expires_at=func.now())
    assert await unremembering.authenticate(key.key) is None
    assert await unremembering.authenticate(new.key)


async def test_the_overlap_ends_also_where_the_key_is_remembered(
    ours: ApiKeys, database: Database, key: Key, maker: Maker
) -> None:
    overlap = timedelta(seconds=0.5)
    new = await rotate(database, key, maker, overlap)
    assert new is not None
    assert await ours.authenticate(key.key)
    await asyncio.sleep(overlap.total_seconds())
    assert await ours.authenticate(key.key) is None
    assert await ours.authenticate(new.key)


async def test_without_an_overlap_the_old_one_is_refused_in_every_process(
    ours: ApiKeys, theirs: ApiKeys, database: Database, key: Key, maker: Maker
) -> None:
    assert await theirs.authenticate(key.key)
    new = await rotate(database, key, maker, timedelta(0))
    assert new is not None
    assert (await get(database, key, maker)).previous_key_hash is None
    assert await ours.authenticate(key.key) is None
    await until_refused(theirs, key)
    assert await theirs.authenticate(new.key)


async def test_a_second_rotation_leaves_nothing_of_the_first(
    unremembering: ApiKeys, database: Database, key: Key, maker: Maker
) -> None:
    second = await rotate(database, key, maker, HOUR)
    assert second is not None
    third = await rotate(database, second, maker, HOUR)
    assert third is not None
    good = await unremembering.recheck([key.key, second.key, third.key])
    assert good.keys() == {second.key, third.key}


@pytest.mark.parametrize("column", ["expires_at", "revoked_at"])
async def test_whatever_ends_a_key_ends_both_of_its_secrets(
    unremembering: ApiKeys, database: Database, key: Key, maker: Maker, column: str
) -> None:
    new = await rotate(database, key, maker, HOUR)
    assert new is not None
    await change(database, key, **{column: func.now()})
    assert await unremembering.recheck([key.key, new.key]) == {}
    assert await rotate(database, key, maker, HOUR) is None


async def test_the_end_of_the_overlap_is_no_later_than_the_expiry(
    unremembering: ApiKeys, database: Database, key: Key, maker: Maker
) -> None:
    await rotate(database, key, maker, HOUR)
    expires_at = datetime.now(UTC) + HOUR / 2
    await change(database, key, expires_at=expires_at)
    found = await unremembering.authenticate(key.key)
    assert found is not None
    assert found.valid_until == expires_at


async def test_of_50_rotations_of_one_state_one_succeeds(database: Database, key: Key, maker: Maker) -> None:
    etag = (await get(database, key, maker)).etag
    rotated = await asyncio.gather(
        *(
            api_keys.rotate_api_key(
                database,
                api_key_id=key.id,
                organization_id=maker.organization_id,
                etag=etag,
                prefix="ack_",
                key_hash=token_hash(str(n)),
                overlap=HOUR,
            )
            for n in range(50)
        )
    )
    assert len([each for each in rotated if each is not None]) == 1


async def test_use_is_written_down_once_a_minute_and_is_no_change(
    unremembering: ApiKeys, database: Database, key: Key, maker: Maker
) -> None:
    made = await get(database, key, maker)
    assert made.last_used_at is None
    await unremembering.authenticate(key.key)
    used = await get(database, key, maker)
    assert used.last_used_at is not None
    assert (used.etag, used.updated_at) == (made.etag, made.updated_at)
    for seconds, written in ((59, False), (60, True)):
        before = used.last_used_at - timedelta(seconds=seconds)
        await change(database, key, last_used_at=before)
        assert all(await asyncio.gather(*(unremembering.authenticate(key.key) for _ in range(5))))
        assert ((await get(database, key, maker)).last_used_at != before) == written


async def test_looking_whether_it_is_good_is_no_use(ours: ApiKeys, database: Database, key: Key, maker: Maker) -> None:
    assert await ours.recheck([key.key])
    assert (await get(database, key, maker)).last_used_at is None


async def test_use_is_written_down_without_waiting_for_whoever_changes_the_key(
    unremembering: ApiKeys, database: Database, key: Key, maker: Maker
) -> None:
    async with database.transaction() as tx:
        await api_keys.revoke_api_key(tx, api_key_id=key.id, organization_id=maker.organization_id)
        async with asyncio.timeout(2):
            assert await unremembering.authenticate(key.key)
    assert await unremembering.authenticate(key.key) is None


async def test_an_answer_older_than_the_revocation_is_not_remembered(
    ours: ApiKeys, here: Sessions, database: Database, key: Key, maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered, arrive, look_up = asyncio.Event(), asyncio.Event(), api_keys.list_live_api_keys

    async def held_back(db: Database, *, key_hashes: list[bytes], use_recorded_every: timedelta) -> object:
        live = await look_up(db, key_hashes=key_hashes, use_recorded_every=use_recorded_every)
        answered.set()
        await arrive.wait()
        return live

    monkeypatch.setattr(api_keys_module, "list_live_api_keys", held_back)
    finding = asyncio.create_task(ours.authenticate(key.key))
    await answered.wait()
    drops = here.cache._callers.drops
    await revoke(database, key, maker)
    await until(lambda: here.cache._callers.drops > drops)
    arrive.set()
    assert await finding  # the call came before the revocation; the next one must not profit
    assert await ours.authenticate(key.key) is None


@pytest.mark.parametrize("by", ["key", "maker", "organization"])
async def test_what_is_forgotten_is_looked_up_again(
    ours: ApiKeys, here: Sessions, database: Database, key: Key, maker: Maker, by: str
) -> None:
    ids = {"key": key.id, "maker": maker.person.account_id, "organization": maker.organization_id}
    assert await ours.authenticate(key.key)
    await change(database, key, revoked_at=func.now())
    here.forget(uuid4())
    assert await ours.authenticate(key.key)
    here.forget(ids[by])
    assert await ours.authenticate(key.key) is None


async def test_those_that_are_good_are_told_apart_from_those_that_are_not(
    ours: ApiKeys, database: Database, key: Key, maker: Maker
) -> None:
    other = await api_key_of(database, *maker, scopes=[PERMISSION_TASKS_WRITE, PERMISSION_MEMBERS_READ])
    revoked = await api_key_of(database, *maker)
    await revoke(database, revoked, maker)
    good: dict[str, Authenticated] = await ours.recheck([key.key, other.key, revoked.key, new_api_key(), "nonsense"])
    assert {each: found.caller.credential_id for each, found in good.items()} == {key.key: key.id, other.key: other.id}
    assert good[other.key].caller.permissions == {PERMISSION_TASKS_WRITE, PERMISSION_MEMBERS_READ}
