"""Device authorization (RFC 8628): a device begins a sign-in and polls until a user approves or denies it."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import grpc
import pytest
from sqlalchemy import Interval, Text, Update, bindparam, cast, delete, func, literal_column, select, update

from accord.accounts.v1.accounts_pb2 import DeleteAccountRequest, SignOutRequest
from accord.devices.v1.devices_pb2 import (
    ApproveDeviceRequest,
    BeginDeviceSignInRequest,
    BeginDeviceSignInResponse,
    DenyDeviceRequest,
    DeviceSignIn,
    GetDeviceSignInRequest,
    PollDeviceSignInRequest,
    PollDeviceSignInResponse,
)
from accord.devices.v1.devices_pb2_grpc import DeviceServiceStub
from accord.tasks.v1.tasks_pb2 import ListTasksRequest
from accord_api.handlers import devices as handlers
from accord_api.outbox import Mail
from accord_auth.tokens import SESSION_PREFIX, new_token
from accord_auth.user_codes import UserCodes, new_user_code
from accord_db import schema
from accord_db.engine.database import Database
from accord_db.queries import sessions
from tests.api.conftest import Client, Refusal, outcome, refusal
from tests.api.mailbox import mailed
from tests.factories import Person, bearer

if TYPE_CHECKING:
    from accord.devices.v1.devices_pb2_grpc import DeviceServiceAsyncStub

_EXPIRE = update(schema.DeviceSignIn).values(expires_at=func.now())
_LAST_POLL_EARLIER = update(schema.DeviceSignIn).values(
    last_polled_at=schema.DeviceSignIn.last_polled_at - cast(bindparam("waited"), Interval)
)
_BAN = update(schema.Account).where(schema.Account.id == bindparam("account_id")).values(banned_at=func.now())
_DELETE = update(schema.Account).where(schema.Account.id == bindparam("account_id")).values(deleted_at=func.now())
_PURGE_SESSION = delete(schema.Session).where(schema.Session.id == bindparam("session_id"))
_SIGNED_IN_EARLIER = (
    update(schema.Session)
    .where(schema.Session.id == bindparam("session_id"))
    .values(authenticated_at=func.now() - cast(bindparam("age"), Interval))
)
_SESSIONS = select(schema.Session).where(schema.Session.account_id == bindparam("account_id"))
_EVENTS = select(schema.AuditEvent).order_by(schema.AuditEvent.occurred_at)
_SIGN_INS = select(schema.DeviceSignIn)
_WHOLE_ROWS = select(cast(literal_column("device_sign_ins"), Text)).select_from(schema.DeviceSignIn)


@pytest.fixture
def devices(client: Client) -> "DeviceServiceAsyncStub":
    return DeviceServiceStub(client.channel)


@pytest.fixture
async def begun(devices: "DeviceServiceAsyncStub") -> BeginDeviceSignInResponse:
    return await begin(devices)


async def begin(devices: "DeviceServiceAsyncStub", name: str = "a command line") -> BeginDeviceSignInResponse:
    return await devices.BeginDeviceSignIn(BeginDeviceSignInRequest(device_name=name))


async def poll(devices: "DeviceServiceAsyncStub", device_code: str) -> PollDeviceSignInResponse:
    return await devices.PollDeviceSignIn(PollDeviceSignInRequest(device_code=device_code))


async def get_sign_in(devices: "DeviceServiceAsyncStub", person: Person, user_code: str) -> DeviceSignIn:
    request = GetDeviceSignInRequest(user_code=user_code)
    return (await devices.GetDeviceSignIn(request, metadata=person.headers)).device_sign_in


async def approve(devices: "DeviceServiceAsyncStub", person: Person, user_code: str) -> None:
    await devices.ApproveDevice(ApproveDeviceRequest(user_code=user_code), metadata=person.headers)


async def deny(devices: "DeviceServiceAsyncStub", person: Person, user_code: str) -> None:
    await devices.DenyDevice(DenyDeviceRequest(user_code=user_code), metadata=person.headers)


Decide = Callable[["DeviceServiceAsyncStub", Person, str], Awaitable[object]]
each_decision = pytest.mark.parametrize("decide", [get_sign_in, approve, deny], ids=["get", "approve", "deny"])


async def wait_before_poll(database: Database, seconds: float) -> None:
    """Moves the last poll into the past by this time."""
    await database.execute(_LAST_POLL_EARLIER, waited=timedelta(seconds=seconds))


async def sessions_of(client: Client, person: Person) -> int:
    return len(await client.database.fetch_all(_SESSIONS, account_id=person.account_id))


# --- begin -------------------------------------------------------------------------------------------------------------
async def test_begin_returns_the_user_code_and_the_device_code(begun: BeginDeviceSignInResponse) -> None:
    assert begun.device_code.startswith("acd_")
    assert len(begun.user_code) == 9
    assert begun.user_code[4] == "-"
    assert set(begun.user_code) <= set("BCDFGHJKLMNPQRSTVWXZ-")
    assert begun.verification_uri == "http://127.0.0.1:3000/device"
    assert begun.verification_uri_complete == f"{begun.verification_uri}?user_code={begun.user_code}"
    assert begun.interval.ToTimedelta() == timedelta(seconds=5)
    left = begun.expires_at.ToDatetime(UTC) - datetime.now(UTC)
    assert timedelta(minutes=9) < left < timedelta(minutes=11)


async def test_codes_are_not_stored_in_plain_text(client: Client, begun: BeginDeviceSignInResponse, me: Person) -> None:
    await approve(DeviceServiceStub(client.channel), me, begun.user_code)
    [row] = await client.database.fetch_all(_WHOLE_ROWS)
    code_without_hyphen = begun.user_code.replace("-", "")
    for secret in (begun.device_code, begun.user_code, code_without_hyphen):
        assert secret not in row
        assert secret.encode().hex() not in row


async def test_hash_of_a_user_code_depends_on_the_key_of_the_installation() -> None:
    assert UserCodes(b"one key").hash("BCDF-GHJK") != UserCodes(b"another key").hash("BCDF-GHJK")


async def test_user_code_that_is_in_use_is_generated_again(
    devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = iter([begun.user_code, begun.user_code, "BCDF-GHJK"])
    monkeypatch.setattr(handlers, "new_user_code", lambda: next(draws))
    assert (await begin(devices)).user_code == "BCDF-GHJK"


@pytest.mark.parametrize("name", ["", "x" * 101, "two\nlines", "\x1b[31m"])
async def test_wrong_device_name_is_an_invalid_argument(devices: "DeviceServiceAsyncStub", name: str) -> None:
    refused = await refusal(devices.BeginDeviceSignIn(BeginDeviceSignInRequest(device_name=name)))
    assert (refused.code, list(refused.violations)) == (grpc.StatusCode.INVALID_ARGUMENT, ["device_name"])


# --- poll --------------------------------------------------------------------------------------------------------------
async def test_poll_before_a_decision_returns_the_interval(
    devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse
) -> None:
    refused = await refusal(poll(devices, begun.device_code))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "AUTHORIZATION_PENDING")
    assert refused.retry_after == 5


async def test_poll_before_the_interval_has_passed_increases_the_interval_by_five_seconds(
    client: Client, devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse
) -> None:
    async def poll_error() -> tuple[str, float | None]:
        refused = await refusal(poll(devices, begun.device_code))
        return refused.reason, refused.retry_after

    assert await poll_error() == ("AUTHORIZATION_PENDING", 5)
    assert await poll_error() == ("SLOW_DOWN", 10)
    assert await poll_error() == ("SLOW_DOWN", 15)
    await wait_before_poll(client.database, 15)
    assert await poll_error() == ("AUTHORIZATION_PENDING", 15)


async def test_poll_after_the_approval_creates_a_session_of_the_approving_user(
    client: Client, devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person
) -> None:
    await approve(devices, me, begun.user_code)
    opened = await poll(devices, begun.device_code)
    assert opened.session.account_id == str(me.account_id)
    assert opened.session.id != str(me.session_id)
    assert opened.session.peer == "127.0.0.1"
    headers = bearer(opened.session_token)
    await client.tasks.ListTasks(ListTasksRequest(), metadata=headers)


async def test_poll_before_the_interval_has_passed_succeeds_after_an_approval(
    devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person
) -> None:
    await refusal(poll(devices, begun.device_code))
    await approve(devices, me, begun.user_code)
    assert (await poll(devices, begun.device_code)).session_token


async def test_one_of_fifty_concurrent_polls_creates_a_session(
    client: Client, devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person
) -> None:
    await approve(devices, me, begun.user_code)
    outcomes = await asyncio.gather(*(outcome(poll(devices, begun.device_code)) for _ in range(50)))
    assert sorted(outcomes) == ["DEVICE_CODE_EXPIRED"] * 49 + ["OK"]
    assert await sessions_of(client, me) == 2


async def test_used_device_code_gets_the_same_error_as_an_unknown_one(
    devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person
) -> None:
    await approve(devices, me, begun.user_code)
    await poll(devices, begun.device_code)
    assert await code_expired(devices, begun.device_code) == await code_expired(devices, new_token("acd_"))


async def test_expired_device_code_gets_the_same_error_as_an_unknown_one(
    client: Client, devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person
) -> None:
    await approve(devices, me, begun.user_code)
    await client.database.execute(_EXPIRE)
    assert await code_expired(devices, begun.device_code) == await code_expired(devices, new_token("acd_"))
    assert await sessions_of(client, me) == 1


@pytest.mark.parametrize(
    "device_code",
    ["x", "acd_", "acd_" + "A" * 48, "ac\u200bd_", pytest.param(new_token(SESSION_PREFIX), id="session token")],
)
async def test_malformed_device_code_gets_the_same_error_as_an_unknown_one(
    devices: "DeviceServiceAsyncStub", device_code: str
) -> None:
    assert await code_expired(devices, device_code) == await code_expired(devices, new_token("acd_"))


@pytest.mark.parametrize("device_code", ["", "x" * 101])
async def test_device_code_of_wrong_length_is_an_invalid_argument(
    devices: "DeviceServiceAsyncStub", device_code: str
) -> None:
    refused = await refusal(poll(devices, device_code))
    assert (refused.code, list(refused.violations)) == (grpc.StatusCode.INVALID_ARGUMENT, ["device_code"])


async def test_device_code_with_one_character_changed_is_unknown(
    client: Client, devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person
) -> None:
    await approve(devices, me, begun.user_code)
    for altered in with_one_character_changed(begun.device_code, "A", "a"):
        await code_expired(devices, altered)
    assert await sessions_of(client, me) == 1
    assert (await poll(devices, begun.device_code)).session_token


async def test_user_code_cannot_poll_and_device_code_cannot_approve(
    devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person
) -> None:
    await code_expired(devices, begun.user_code)
    await code_not_found(approve(devices, me, begun.device_code[:20]))


async def code_expired(devices: "DeviceServiceAsyncStub", device_code: str) -> Refusal:
    refused = await refusal(poll(devices, device_code))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "DEVICE_CODE_EXPIRED")
    return refused


# --- approve and deny ----------------------------------------------------------------------------------------------------
async def test_user_sees_the_name_and_the_address_of_the_device(
    devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person
) -> None:
    sign_in = await get_sign_in(devices, me, begun.user_code)
    assert (sign_in.device_name, sign_in.peer) == ("a command line", "127.0.0.1")
    assert sign_in.expires_at == begun.expires_at
    assert sign_in.expires_at.ToDatetime() - sign_in.created_at.ToDatetime() == timedelta(minutes=10)


@pytest.mark.parametrize(
    "typed", [str.lower, lambda code: code.replace("-", ""), lambda code: f" {code[:2]} {code[2:]} "]
)
async def test_user_code_ignores_case_hyphens_and_spaces(
    devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person, typed: Callable[[str], str]
) -> None:
    await approve(devices, me, typed(begun.user_code))
    assert (await poll(devices, begun.device_code)).session.account_id == str(me.account_id)


@each_decision
async def test_unknown_expired_and_decided_user_codes_get_the_same_error(
    client: Client, devices: "DeviceServiceAsyncStub", me: Person, decide: Decide
) -> None:
    unknown = await code_not_found(decide(devices, me, new_user_code()))
    approved, denied, late = [await begin(devices) for _ in range(3)]
    await approve(devices, await client.new_user(), approved.user_code)
    await deny(devices, await client.new_user(), denied.user_code)
    for decided in (approved, denied):
        assert await code_not_found(decide(devices, me, decided.user_code)) == unknown
    await client.database.execute(_EXPIRE)
    assert await code_not_found(decide(devices, me, late.user_code)) == unknown


@each_decision
async def test_user_code_with_one_letter_changed_is_unknown(
    devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person, decide: Decide
) -> None:
    for altered in with_one_character_changed(begun.user_code.replace("-", ""), "B", "C"):
        await code_not_found(decide(devices, me, altered))
    await get_sign_in(devices, me, begun.user_code)


@each_decision
@pytest.mark.parametrize("user_code", ["", "x" * 21])
async def test_user_code_of_wrong_length_is_an_invalid_argument(
    devices: "DeviceServiceAsyncStub", me: Person, decide: Decide, user_code: str
) -> None:
    refused = await refusal(decide(devices, me, user_code))
    assert (refused.code, list(refused.violations)) == (grpc.StatusCode.INVALID_ARGUMENT, ["user_code"])


@each_decision
async def test_decision_requires_a_session(
    devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person, decide: Decide
) -> None:
    signed_out = Person(me.account_id, me.session_id, me.email, new_token(SESSION_PREFIX))
    assert (await refusal(decide(devices, signed_out, begun.user_code))).code == grpc.StatusCode.UNAUTHENTICATED


async def test_each_poll_of_a_denied_device_fails(
    client: Client, devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person
) -> None:
    await deny(devices, me, begun.user_code)
    for _ in range(2):
        refused = await refusal(poll(devices, begun.device_code))
        assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "AUTHORIZATION_DENIED")
    assert await sessions_of(client, me) == 1


async def test_one_of_fifty_concurrent_approvals_succeeds_and_its_user_gets_the_session(
    client: Client, devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse
) -> None:
    people = [await client.new_user() for _ in range(50)]
    outcomes = await asyncio.gather(*(outcome(approve(devices, person, begun.user_code)) for person in people))
    assert sorted(outcomes) == ["OK"] + ["USER_CODE_NOT_FOUND"] * 49
    winner = people[outcomes.index("OK")]
    assert (await poll(devices, begun.device_code)).session.account_id == str(winner.account_id)
    assert len([person for person in people if await mailed(client.database, person.email)]) == 1


async def test_approving_user_gets_an_email(
    client: Client, devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person
) -> None:
    await approve(devices, me, begun.user_code)
    [email] = await mailed(client.database, me.email)
    assert email.template == Mail.DEVICE_APPROVED
    assert email.values == {"display_name": "Some User", "device_name": "a command line", "peer": "127.0.0.1"}


async def code_not_found(call: Awaitable[object]) -> Refusal:
    refused = await refusal(call)
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "USER_CODE_NOT_FOUND")
    return refused


# --- between approval and poll ---------------------------------------------------------------------------------------------
async def test_session_of_a_device_is_as_fresh_as_the_session_that_approved_it(
    client: Client, devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person
) -> None:
    await client.database.execute(_SIGNED_IN_EARLIER, session_id=me.session_id, age=timedelta(hours=3))
    mine = await sessions.get_session(client.database, session_id=me.session_id, account_id=me.account_id)
    await approve(devices, me, begun.user_code)
    opened = await poll(devices, begun.device_code)
    assert mine is not None
    assert opened.session.authenticated_at.ToDatetime(UTC) == mine.authenticated_at
    headers = bearer(opened.session_token)
    refused = await refusal(client.accounts.DeleteAccount(DeleteAccountRequest(), metadata=headers))
    assert refused.reason == "SIGN_IN_NOT_FRESH"


async def test_sign_out_after_the_approval_revokes_the_approval(
    client: Client, devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person
) -> None:
    await approve(devices, me, begun.user_code)
    await client.accounts.SignOut(SignOutRequest(), metadata=me.headers)
    await code_expired(devices, begun.device_code)


async def test_revocation_of_all_sessions_revokes_the_approval(
    client: Client, devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person
) -> None:
    await approve(devices, me, begun.user_code)
    await sessions.revoke_sessions_of_account(client.database, account_id=me.account_id)
    await code_expired(devices, begun.device_code)


@pytest.mark.parametrize("ended", [_BAN, _DELETE], ids=["banned", "deleted"])
async def test_account_that_is_banned_or_deleted_after_the_approval_gets_no_session(
    client: Client, devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person, ended: Update
) -> None:
    await approve(devices, me, begun.user_code)
    await client.database.execute(ended, account_id=me.account_id)
    await code_expired(devices, begun.device_code)
    assert await sessions_of(client, me) == 1


async def test_deletion_of_the_approving_session_revokes_the_approval(
    client: Client, devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person
) -> None:
    await approve(devices, me, begun.user_code)
    await client.database.execute(_PURGE_SESSION, session_id=me.session_id)
    await code_expired(devices, begun.device_code)


# --- audit -----------------------------------------------------------------------------------------------------------------
async def test_pending_polls_have_no_audit_event_and_each_decision_has_one(
    client: Client, devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person
) -> None:
    await refusal(poll(devices, begun.device_code))
    await refusal(poll(devices, begun.device_code))
    await approve(devices, me, begun.user_code)
    await poll(devices, begun.device_code)
    [row] = await client.database.fetch_all(_SIGN_INS)
    events = await client.database.fetch_all(_EVENTS)
    assert [(event.method.rpartition("/")[2], event.code, event.account_id, event.target) for event in events] == [
        ("BeginDeviceSignIn", "OK", None, str(row.id)),
        ("ApproveDevice", "OK", me.account_id, str(row.id)),
        ("PollDeviceSignIn", "OK", me.account_id, str(row.id)),
    ]


async def test_denial_and_the_poll_that_reports_it_are_audited(
    client: Client, devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person
) -> None:
    await deny(devices, me, begun.user_code)
    await refusal(poll(devices, begun.device_code))
    await refusal(approve(devices, me, begun.user_code))
    [row] = await client.database.fetch_all(_SIGN_INS)
    events = await client.database.fetch_all(_EVENTS)
    assert [(event.method.rpartition("/")[2], event.reason, event.target) for event in events[1:]] == [
        ("DenyDevice", None, str(row.id)),
        ("PollDeviceSignIn", "AUTHORIZATION_DENIED", str(row.id)),
        ("ApproveDevice", "USER_CODE_NOT_FOUND", None),
    ]


def with_one_character_changed(text: str, one: str, other: str) -> list[str]:
    """Copies of the text, each with another character replaced by `one` or `other`."""
    return [
        text[:index] + (other if character == one else one) + text[index + 1 :] for index, character in enumerate(text)
    ]
