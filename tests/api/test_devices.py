"""Devices, as RFC 8628 has them: begun by the device, decided by a person, polled until then."""

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
_PATIENT = update(schema.DeviceSignIn).values(
    last_polled_at=schema.DeviceSignIn.last_polled_at - cast(bindparam("waited"), Interval)
)
_BAN = update(schema.Account).where(schema.Account.id == bindparam("account_id")).values(banned_at=func.now())
_DELETE = update(schema.Account).where(schema.Account.id == bindparam("account_id")).values(deleted_at=func.now())
_PURGE_SESSION = delete(schema.Session).where(schema.Session.id == bindparam("session_id"))
_SIGNED_IN_BEFORE = (
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


async def look(devices: "DeviceServiceAsyncStub", who: Person, user_code: str) -> DeviceSignIn:
    request = GetDeviceSignInRequest(user_code=user_code)
    return (await devices.GetDeviceSignIn(request, metadata=who.headers)).device_sign_in


async def approve(devices: "DeviceServiceAsyncStub", who: Person, user_code: str) -> None:
    await devices.ApproveDevice(ApproveDeviceRequest(user_code=user_code), metadata=who.headers)


async def deny(devices: "DeviceServiceAsyncStub", who: Person, user_code: str) -> None:
    await devices.DenyDevice(DenyDeviceRequest(user_code=user_code), metadata=who.headers)


Decide = Callable[["DeviceServiceAsyncStub", Person, str], Awaitable[object]]
deciding = pytest.mark.parametrize("decide", [look, approve, deny], ids=["look", "approve", "deny"])


async def wait(database: Database, seconds: float) -> None:
    """As if so much time had passed since the last poll."""
    await database.execute(_PATIENT, waited=timedelta(seconds=seconds))


async def sessions_of(client: Client, who: Person) -> int:
    return len(await client.database.fetch_all(_SESSIONS, account_id=who.account_id))


# --- begin -------------------------------------------------------------------------------------------------------------
async def test_begin_answers_what_the_device_shows_and_what_it_keeps(begun: BeginDeviceSignInResponse) -> None:
    assert begun.device_code.startswith("acd_")
    assert len(begun.user_code) == 9
    assert begun.user_code[4] == "-"
    assert set(begun.user_code) <= set("BCDFGHJKLMNPQRSTVWXZ-")
    assert begun.verification_uri == "http://127.0.0.1:3000/device"
    assert begun.verification_uri_complete == f"{begun.verification_uri}?user_code={begun.user_code}"
    assert begun.interval.ToTimedelta() == timedelta(seconds=5)
    left = begun.expires_at.ToDatetime(UTC) - datetime.now(UTC)
    assert timedelta(minutes=9) < left < timedelta(minutes=11)


async def test_no_code_is_in_the_database_in_clear(
    client: Client, begun: BeginDeviceSignInResponse, me: Person
) -> None:
    await approve(DeviceServiceStub(client.channel), me, begun.user_code)
    [row] = await client.database.fetch_all(_WHOLE_ROWS)
    letters = begun.user_code.replace("-", "")
    for secret in (begun.device_code, begun.user_code, letters):
        assert secret not in row
        assert secret.encode().hex() not in row


async def test_another_installation_has_another_hash_for_the_same_code() -> None:
    assert UserCodes(b"one key").hash("BCDF-GHJK") != UserCodes(b"another key").hash("BCDF-GHJK")


async def test_a_user_code_that_is_taken_is_drawn_anew(
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
async def test_poll_before_anybody_has_decided_says_when_to_ask_again(
    devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse
) -> None:
    refused = await refusal(poll(devices, begun.device_code))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "AUTHORIZATION_PENDING")
    assert refused.retry_after == 5


async def test_polls_too_soon_are_slowed_down_by_five_seconds_each_and_patient_ones_are_not(
    client: Client, devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse
) -> None:
    async def answer() -> tuple[str, float | None]:
        refused = await refusal(poll(devices, begun.device_code))
        return refused.reason, refused.retry_after

    assert await answer() == ("AUTHORIZATION_PENDING", 5)
    assert await answer() == ("SLOW_DOWN", 10)
    assert await answer() == ("SLOW_DOWN", 15)
    await wait(client.database, 15)
    assert await answer() == ("AUTHORIZATION_PENDING", 15)


async def test_poll_after_the_approval_opens_a_session_of_who_approved(
    client: Client, devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person
) -> None:
    await approve(devices, me, begun.user_code)
    opened = await poll(devices, begun.device_code)
    assert opened.session.account_id == str(me.account_id)
    assert opened.session.id != str(me.session_id)
    assert opened.session.peer == "127.0.0.1"
    headers = bearer(opened.session_token)
    await client.tasks.ListTasks(ListTasksRequest(), metadata=headers)


async def test_poll_soon_after_the_last_is_let_in_if_somebody_approved_meanwhile(
    devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person
) -> None:
    await refusal(poll(devices, begun.device_code))
    await approve(devices, me, begun.user_code)
    assert (await poll(devices, begun.device_code)).session_token


async def test_of_fifty_polls_at_once_one_opens_a_session(
    client: Client, devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person
) -> None:
    await approve(devices, me, begun.user_code)
    answers = await asyncio.gather(*(outcome(poll(devices, begun.device_code)) for _ in range(50)))
    assert sorted(answers) == ["DEVICE_CODE_EXPIRED"] * 49 + ["OK"]
    assert await sessions_of(client, me) == 2


async def test_a_used_code_is_answered_as_one_that_never_was(
    devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person
) -> None:
    await approve(devices, me, begun.user_code)
    await poll(devices, begun.device_code)
    assert await expired(devices, begun.device_code) == await expired(devices, new_token("acd_"))


async def test_an_expired_code_is_answered_as_one_that_never_was(
    client: Client, devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person
) -> None:
    await approve(devices, me, begun.user_code)
    await client.database.execute(_EXPIRE)
    assert await expired(devices, begun.device_code) == await expired(devices, new_token("acd_"))
    assert await sessions_of(client, me) == 1


@pytest.mark.parametrize(
    "device_code",
    ["x", "acd_", "acd_" + "A" * 48, "ac\u200bd_", pytest.param(new_token(SESSION_PREFIX), id="session token")],
)
async def test_what_is_no_device_code_is_answered_as_one_that_never_was(
    devices: "DeviceServiceAsyncStub", device_code: str
) -> None:
    assert await expired(devices, device_code) == await expired(devices, new_token("acd_"))


@pytest.mark.parametrize("device_code", ["", "x" * 101])
async def test_device_code_of_wrong_length_is_an_invalid_argument(
    devices: "DeviceServiceAsyncStub", device_code: str
) -> None:
    refused = await refusal(poll(devices, device_code))
    assert (refused.code, list(refused.violations)) == (grpc.StatusCode.INVALID_ARGUMENT, ["device_code"])


async def test_no_character_of_a_device_code_may_differ(
    client: Client, devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person
) -> None:
    await approve(devices, me, begun.user_code)
    for altered in flipped(begun.device_code, "A", "a"):
        await expired(devices, altered)
    assert await sessions_of(client, me) == 1
    assert (await poll(devices, begun.device_code)).session_token


async def test_the_user_code_does_not_poll_and_the_device_code_does_not_approve(
    devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person
) -> None:
    await expired(devices, begun.user_code)
    await not_found(approve(devices, me, begun.device_code[:20]))


async def expired(devices: "DeviceServiceAsyncStub", device_code: str) -> Refusal:
    refused = await refusal(poll(devices, device_code))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "DEVICE_CODE_EXPIRED")
    return refused


# --- what a person sees and decides --------------------------------------------------------------------------------------
async def test_a_person_sees_which_device_it_is(
    devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person
) -> None:
    shown = await look(devices, me, begun.user_code)
    assert (shown.device_name, shown.peer) == ("a command line", "127.0.0.1")
    assert shown.expires_at == begun.expires_at
    assert shown.expires_at.ToDatetime() - shown.created_at.ToDatetime() == timedelta(minutes=10)


@pytest.mark.parametrize(
    "typed", [str.lower, lambda code: code.replace("-", ""), lambda code: f" {code[:2]} {code[2:]} "]
)
async def test_a_code_is_entered_in_any_case_and_with_anything_between(
    devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person, typed: Callable[[str], str]
) -> None:
    await approve(devices, me, typed(begun.user_code))
    assert (await poll(devices, begun.device_code)).session.account_id == str(me.account_id)


@deciding
async def test_codes_that_are_unknown_expired_or_decided_are_answered_alike(
    client: Client, devices: "DeviceServiceAsyncStub", me: Person, decide: Decide
) -> None:
    unknown = await not_found(decide(devices, me, new_user_code()))
    approved, denied, late = [await begin(devices) for _ in range(3)]
    await approve(devices, await client.somebody(), approved.user_code)
    await deny(devices, await client.somebody(), denied.user_code)
    for decided in (approved, denied):
        assert await not_found(decide(devices, me, decided.user_code)) == unknown
    await client.database.execute(_EXPIRE)
    assert await not_found(decide(devices, me, late.user_code)) == unknown


@deciding
async def test_no_letter_of_a_user_code_may_differ(
    devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person, decide: Decide
) -> None:
    for altered in flipped(begun.user_code.replace("-", ""), "B", "C"):
        await not_found(decide(devices, me, altered))
    await look(devices, me, begun.user_code)


@deciding
@pytest.mark.parametrize("user_code", ["", "x" * 21])
async def test_user_code_of_wrong_length_is_an_invalid_argument(
    devices: "DeviceServiceAsyncStub", me: Person, decide: Decide, user_code: str
) -> None:
    refused = await refusal(decide(devices, me, user_code))
    assert (refused.code, list(refused.violations)) == (grpc.StatusCode.INVALID_ARGUMENT, ["user_code"])


@deciding
async def test_nobody_decides_without_being_signed_in(
    devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person, decide: Decide
) -> None:
    stranger = Person(me.account_id, me.session_id, me.email, new_token(SESSION_PREFIX))
    assert (await refusal(decide(devices, stranger, begun.user_code))).code == grpc.StatusCode.UNAUTHENTICATED


async def test_a_denied_device_is_told_so_each_time_and_gets_no_session(
    client: Client, devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person
) -> None:
    await deny(devices, me, begun.user_code)
    for _ in range(2):
        refused = await refusal(poll(devices, begun.device_code))
        assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "AUTHORIZATION_DENIED")
    assert await sessions_of(client, me) == 1


async def test_of_fifty_people_who_approve_at_once_one_does_and_the_session_is_theirs(
    client: Client, devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse
) -> None:
    people = [await client.somebody() for _ in range(50)]
    answers = await asyncio.gather(*(outcome(approve(devices, who, begun.user_code)) for who in people))
    assert sorted(answers) == ["OK"] + ["USER_CODE_NOT_FOUND"] * 49
    winner = people[answers.index("OK")]
    assert (await poll(devices, begun.device_code)).session.account_id == str(winner.account_id)
    assert len([who for who in people if await mailed(client.database, who.email)]) == 1


async def test_the_one_who_approves_is_mailed(
    client: Client, devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person
) -> None:
    await approve(devices, me, begun.user_code)
    [letter] = await mailed(client.database, me.email)
    assert letter.template == Mail.DEVICE_APPROVED
    assert letter.values == {"display_name": "Somebody", "device_name": "a command line", "peer": "127.0.0.1"}


async def not_found(call: Awaitable[object]) -> Refusal:
    refused = await refusal(call)
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "USER_CODE_NOT_FOUND")
    return refused


# --- between approval and poll ---------------------------------------------------------------------------------------------
async def test_the_session_of_a_device_is_no_fresher_than_that_of_who_approved(
    client: Client, devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person
) -> None:
    await client.database.execute(_SIGNED_IN_BEFORE, session_id=me.session_id, age=timedelta(hours=3))
    mine = await sessions.get_session(client.database, session_id=me.session_id, account_id=me.account_id)
    await approve(devices, me, begun.user_code)
    opened = await poll(devices, begun.device_code)
    assert mine is not None
    assert opened.session.authenticated_at.ToDatetime(UTC) == mine.authenticated_at
    headers = bearer(opened.session_token)
    refused = await refusal(client.accounts.DeleteAccount(DeleteAccountRequest(), metadata=headers))
    assert refused.reason == "SIGN_IN_NOT_FRESH"


async def test_a_sign_out_after_the_approval_shuts_the_device_out(
    client: Client, devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person
) -> None:
    await approve(devices, me, begun.user_code)
    await client.accounts.SignOut(SignOutRequest(), metadata=me.headers)
    await expired(devices, begun.device_code)


async def test_what_ends_all_sessions_shuts_the_device_out(
    client: Client, devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person
) -> None:
    await approve(devices, me, begun.user_code)
    await sessions.revoke_sessions_of_account(client.database, account_id=me.account_id)
    await expired(devices, begun.device_code)


@pytest.mark.parametrize("ended", [_BAN, _DELETE], ids=["banned", "deleted"])
async def test_an_account_that_is_gone_by_then_gets_no_session(
    client: Client, devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person, ended: Update
) -> None:
    await approve(devices, me, begun.user_code)
    await client.database.execute(ended, account_id=me.account_id)
    await expired(devices, begun.device_code)
    assert await sessions_of(client, me) == 1


async def test_a_session_that_was_cleaned_away_lets_no_device_in(
    client: Client, devices: "DeviceServiceAsyncStub", begun: BeginDeviceSignInResponse, me: Person
) -> None:
    await approve(devices, me, begun.user_code)
    await client.database.execute(_PURGE_SESSION, session_id=me.session_id)
    await expired(devices, begun.device_code)


# --- audit -----------------------------------------------------------------------------------------------------------------
async def test_what_is_undecided_leaves_no_audit_event_and_each_decision_one(
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


async def test_a_denial_is_in_the_audit_and_so_is_the_device_that_was_told(
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


def flipped(text: str, one: str, other: str) -> list[str]:
    """The text with each of its characters changed into another, one at a time."""
    return [text[:place] + (other if letter == one else one) + text[place + 1 :] for place, letter in enumerate(text)]
