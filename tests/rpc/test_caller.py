import asyncio
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from accord.policy.v1.policy_pb2 import Credential
from accord_rpc.caller import Caller, NoCaller, caller, set_caller


def a_caller() -> Caller:
    return Caller(
        account_id=uuid4(),
        credential_id=uuid4(),
        credential=Credential.CREDENTIAL_SESSION,
        authenticated_at=datetime.now(UTC),
    )


async def test_who_was_set_is_the_caller() -> None:
    someone = a_caller()
    set_caller(someone)
    assert caller() is someone


async def test_without_a_caller_asking_is_a_fault_that_says_what_to_do() -> None:
    with pytest.raises(NoCaller, match="access must be signed-in"):
        caller()


async def test_300_concurrent_calls_see_each_their_own_caller() -> None:
    async def call() -> bool:
        someone = a_caller()
        set_caller(someone)
        for _ in range(5):
            await asyncio.sleep(0)
            if caller() is not someone:
                return False
        return await asyncio.create_task(_current()) is someone

    assert all(await asyncio.gather(*(asyncio.create_task(call()) for _ in range(300))))
    with pytest.raises(NoCaller):
        caller()


def test_a_caller_has_no_permission_that_was_not_given() -> None:
    assert a_caller().permissions == frozenset()


def test_a_caller_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        a_caller().account_id = uuid4()  # type: ignore[misc]  # it is what is tested


def test_only_a_session_has_a_session_id() -> None:
    someone = a_caller()
    assert someone.session_id == someone.credential_id
    with pytest.raises(NoCaller, match="without a session"):
        replace(someone, credential=Credential.CREDENTIAL_API_KEY).session_id  # noqa: B018  # it is what is tested


def test_whoever_has_no_organization_owns_what_they_make() -> None:
    someone, organization_id = a_caller(), uuid4()
    assert someone.owner_id == someone.account_id
    with pytest.raises(NoCaller, match="there may be none"):
        someone.active_organization_id  # noqa: B018  # it is what is tested
    member = replace(someone, organization_id=organization_id)
    assert member.owner_id == member.active_organization_id == organization_id


async def _current() -> Caller:
    return caller()
