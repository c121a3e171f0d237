import asyncio
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from accord.policy.v1.policy_pb2 import Credential, Permission
from accord_db.engine.scope import enter
from accord_rpc.call import Call
from accord_rpc.caller import Caller, NoCaller, NoPermissionChecked, caller


def a_caller() -> Caller:
    return Caller(
        account_id=uuid4(),
        credential_id=uuid4(),
        credential=Credential.CREDENTIAL_SESSION,
        authenticated_at=datetime.now(UTC),
    )


def a_call(someone: Caller) -> Call:
    return Call(method="/a/B", request_id="1", peer="192.0.2.1", user_agent="", caller=someone)


async def test_who_was_set_is_the_caller() -> None:
    someone = a_caller()
    enter(a_call(someone))
    assert caller() is someone


async def test_without_a_caller_asking_is_a_fault_that_says_what_to_do() -> None:
    with pytest.raises(NoCaller, match="access must be ACCESS_SIGNED_IN"):
        caller()


async def test_300_concurrent_calls_see_each_their_own_caller() -> None:
    async def call() -> bool:
        someone = a_caller()
        enter(a_call(someone))
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


def test_owner_is_the_active_organization_or_the_account_if_none_is_active() -> None:
    person = replace(a_caller(), permission_checked=True)
    assert person.owner_id == person.account_id
    assert person.tenant == str(person.account_id).encode()
    with pytest.raises(NoCaller, match="no organization is active"):
        person.active_organization_id  # noqa: B018  # it is what is tested
    member = replace(person, organization_id=uuid4())
    assert member.owner_id == member.active_organization_id == member.organization_id
    assert member.tenant == str(member.organization_id).encode()


@pytest.mark.parametrize("name", ["owner_id", "active_organization_id"])
@pytest.mark.parametrize("organization_id", [None, uuid4()])
def test_owner_is_not_available_where_no_permission_was_checked(name: str, organization_id: UUID | None) -> None:
    unchecked = replace(a_caller(), organization_id=organization_id, permissions=frozenset(Permission.values()))
    with pytest.raises(NoPermissionChecked, match=f"{name} is not available"):
        getattr(unchecked, name)
    assert unchecked.tenant == str(unchecked.account_id).encode()


async def _current() -> Caller:
    return caller()
