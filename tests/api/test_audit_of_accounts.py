"""Every audited method of the account services writes one event with actor, method, target, time, peer and outcome.

The methods are read from the contract.
"""

from base64 import b32decode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import uuid4

import grpc
import psycopg
import pytest
from google.protobuf.message import Message
from psycopg.rows import class_row

from accord.accounts.v1.accounts_pb2 import (
    Account,
    ChangeEmailRequest,
    ChangePasswordRequest,
    CompleteSignInRequest,
    DeleteAccountRequest,
    RequestPasswordResetRequest,
    ResendVerificationEmailRequest,
    ResetPasswordRequest,
    SignInRequest,
    SignInResponse,
    SignOutRequest,
    SignUpRequest,
    UpdateAccountRequest,
    VerifyEmailRequest,
)
from accord.accounts.v1.accounts_pb2_grpc import AccountServiceStub
from accord.devices.v1.devices_pb2 import (
    ApproveDeviceRequest,
    BeginDeviceSignInRequest,
    DenyDeviceRequest,
    PollDeviceSignInRequest,
)
from accord.devices.v1.devices_pb2_grpc import DeviceServiceStub
from accord.organizations.v1.organizations_pb2 import CreateOrganizationRequest
from accord.organizations.v1.organizations_pb2_grpc import OrganizationServiceStub
from accord.policy.v1.policy_pb2 import ACCESS_SIGNED_IN
from accord.providers.v1.providers_pb2 import (
    BeginLinkProviderRequest,
    BeginProviderSignInRequest,
    CompleteProviderSignInRequest,
    LinkProviderRequest,
    UnlinkProviderRequest,
)
from accord.providers.v1.providers_pb2_grpc import ProviderServiceStub
from accord.second_factors.v1.second_factors_pb2 import (
    ConfirmSecondFactorRequest,
    CreateRecoveryCodesRequest,
    CreateSecondFactorRequest,
    DeleteSecondFactorRequest,
)
from accord.second_factors.v1.second_factors_pb2_grpc import SecondFactorServiceStub
from accord.sessions.v1.sessions_pb2 import ReauthenticateRequest, RevokeOtherSessionsRequest, RevokeSessionRequest
from accord.sessions.v1.sessions_pb2_grpc import SessionServiceStub
from accord_api.outbox import Mail
from accord_db.engine.ids import uuid7
from accord_gateway.settings import Settings
from accord_rpc.contract import contract_services
from accord_rpc.policy import read_methods
from tests.api.conftest import Client
from tests.api.hostile_provider import REDIRECT_URI, Provider
from tests.api.mailbox import mailed_token
from tests.api.signing_in import EMAIL, OTHER_EMAIL, OTHER_PASSWORD, PASSWORD
from tests.authenticator import Authenticator
from tests.factories import Headers, bearer

SERVICES = ("accounts", "sessions", "second_factors", "providers", "devices")
AUDITED = {
    method.path: method
    for method in read_methods(contract_services())[0]
    if method.policy.audit and method.service.split(".")[1] in SERVICES
}
# Methods that can fail after authorization: with a reason of their own or, for SignUp, with an invalid password.
REFUSABLE = {path for path, method in AUDITED.items() if method.policy.errors or method.name == "SignUp"}
# A device sign-in that has just begun has no account.
WITHOUT_ACCOUNT = {"BeginDeviceSignIn"}


class RecordedCall(NamedTuple):
    """The outcome of a call, as the client received it."""

    method: str
    request_id: str
    code: str


class Journal(grpc.aio.UnaryUnaryClientInterceptor):
    """Records each call of an audited method."""

    def __init__(self) -> None:
        self.calls: list[RecordedCall] = []

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        call = await continuation(details, request)
        code = await call.code()
        trailers = dict(await call.trailing_metadata())
        path = details.method if isinstance(details.method, str) else details.method.decode()
        if path in AUDITED:
            self.calls.append(RecordedCall(path, trailers["x-request-id"], code.name))
        return call


@dataclass(frozen=True)
class RecordedClient:
    """Stubs on a channel that records the calls of audited methods."""

    channel: grpc.aio.Channel
    journal: Journal
    client: Client
    provider: Provider

    @property
    def accounts(self) -> Any:
        return AccountServiceStub(self.channel)

    @property
    def sessions(self) -> Any:
        return SessionServiceStub(self.channel)

    @property
    def factors(self) -> Any:
        return SecondFactorServiceStub(self.channel)

    @property
    def devices(self) -> Any:
        return DeviceServiceStub(self.channel)

    @property
    def providers(self) -> Any:
        return ProviderServiceStub(self.channel)

    async def sign_in(self, password: str = PASSWORD, email: str = EMAIL) -> SignInResponse:
        response: SignInResponse = await self.accounts.SignIn(SignInRequest(email=email, password=password))
        return response

    async def mailed(self, to: str, mail: Mail) -> str:
        return await mailed_token(self.client.database, to, mail)

    async def second_factor(self, headers: Headers) -> list[str]:
        """Sets up a second factor. Returns the recovery codes."""
        made = await self.factors.CreateSecondFactor(CreateSecondFactorRequest(), metadata=headers)
        app = await Authenticator.enrolled(self.client.database, b32decode(made.secret))
        confirm = ConfirmSecondFactorRequest(code=app.code())
        confirmed = await self.factors.ConfirmSecondFactor(confirm, metadata=headers)
        return list(confirmed.recovery_codes)


@pytest.fixture
def gateway_settings(provider: Provider) -> Settings:
    providers = {"honest": provider.settings()}
    return Settings(port=0, metrics_port=0, providers=providers, provider_redirect_uris=(REDIRECT_URI,))


@pytest.fixture
async def recorded(client: Client, gateway: tuple[Any, str], provider: Provider) -> AsyncIterator[RecordedClient]:
    journal = Journal()
    async with grpc.aio.insecure_channel(gateway[1], interceptors=[journal]) as channel:
        yield RecordedClient(channel, journal, client, provider)


class Event(NamedTuple):
    request_id: str
    method: str
    account_id: str | None
    target: str | None
    peer: str
    user_agent: str | None
    code: str
    reason: str | None
    occurred_at: datetime


def events(dsn: str) -> dict[str, Event]:
    """All events by request id. Each request id occurs once."""
    columns = ", ".join(name + "::text" if name == "account_id" else name for name in Event._fields)
    with psycopg.connect(dsn, row_factory=class_row(Event)) as connection:
        rows = connection.execute(f"SELECT {columns} FROM audit_events").fetchall()
    found = {row.request_id: row for row in rows}
    assert len(found) == len(rows)
    return found


def clock(dsn: str) -> datetime:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    now: datetime = row[0]
    return now


async def test_every_audited_method_writes_an_event_on_success(recorded: RecordedClient, dsn: str) -> None:
    began = clock(dsn)
    me, newcomer = await call_every_method(recorded)
    ended = clock(dsn)
    found = events(dsn)
    assert {call.method for call in recorded.journal.calls} == AUDITED.keys()
    assert {call.request_id for call in recorded.journal.calls} == found.keys()
    for call in recorded.journal.calls:
        event, name = found[call.request_id], AUDITED[call.method].name
        assert (event.method, event.code, event.reason) == (call.method, "OK", None)
        account_id = newcomer if name == "CompleteProviderSignIn" else None if name in WITHOUT_ACCOUNT else me
        assert event.account_id == account_id, name
        assert event.target is not None, name
        assert event.peer == "127.0.0.1"
        assert event.user_agent
        assert began <= event.occurred_at <= ended


async def call_every_method(recorded: RecordedClient) -> tuple[str, str]:
    """Calls every method successfully. Returns the ids of the account and of that made by the provider sign-in."""
    headers, me = await sign_up(recorded)
    headers = await change_sessions(recorded, headers)
    headers = await change_account(recorded, headers)
    await sign_in_devices(recorded, headers)
    newcomer = await use_provider(recorded, headers)
    codes = await recorded.second_factor(headers)
    waiting = await recorded.sign_in(OTHER_PASSWORD, OTHER_EMAIL)
    await recorded.accounts.CompleteSignIn(
        CompleteSignInRequest(second_step_token=waiting.second_step_token, recovery_code=codes[0])
    )
    await recorded.factors.CreateRecoveryCodes(CreateRecoveryCodesRequest(), metadata=headers)
    await recorded.factors.DeleteSecondFactor(DeleteSecondFactorRequest(), metadata=headers)
    await recorded.accounts.DeleteAccount(DeleteAccountRequest(), metadata=headers)
    return me, newcomer


async def sign_up(recorded: RecordedClient) -> tuple[Headers, str]:
    await recorded.accounts.SignUp(SignUpRequest(email=EMAIL, password=PASSWORD, display_name="Ada"))
    await recorded.accounts.ResendVerificationEmail(ResendVerificationEmailRequest(email=EMAIL))
    token = await recorded.mailed(EMAIL, Mail.VERIFY_EMAIL)
    await recorded.accounts.VerifyEmail(VerifyEmailRequest(token=token))
    signed_in = await recorded.sign_in()
    return bearer(signed_in.session_token), signed_in.session.account_id


async def change_sessions(recorded: RecordedClient, headers: Headers) -> Headers:
    out, other, _ = [await recorded.sign_in() for _ in range(3)]
    await recorded.accounts.SignOut(SignOutRequest(), metadata=bearer(out.session_token))
    await recorded.sessions.RevokeSession(RevokeSessionRequest(session_id=other.session.id), metadata=headers)
    await recorded.sessions.RevokeOtherSessions(RevokeOtherSessionsRequest(), metadata=headers)
    again = await recorded.sessions.Reauthenticate(ReauthenticateRequest(password=PASSWORD), metadata=headers)
    return bearer(again.session_token)


async def change_account(recorded: RecordedClient, headers: Headers) -> Headers:
    accounts = recorded.accounts
    await accounts.UpdateAccount(UpdateAccountRequest(account=Account(display_name="Ada L.")), metadata=headers)
    await accounts.ChangeEmail(ChangeEmailRequest(new_email=OTHER_EMAIL), metadata=headers)
    token = await recorded.mailed(OTHER_EMAIL, Mail.CHANGE_EMAIL)
    await accounts.VerifyEmail(VerifyEmailRequest(token=token))
    new = ChangePasswordRequest(current_password=PASSWORD, new_password="between the other two")
    await accounts.ChangePassword(new, metadata=headers)
    await accounts.RequestPasswordReset(RequestPasswordResetRequest(email=OTHER_EMAIL))
    token = await recorded.mailed(OTHER_EMAIL, Mail.RESET_PASSWORD)
    await accounts.ResetPassword(ResetPasswordRequest(token=token, new_password=OTHER_PASSWORD))
    return bearer((await recorded.sign_in(OTHER_PASSWORD, OTHER_EMAIL)).session_token)


async def sign_in_devices(recorded: RecordedClient, headers: Headers) -> None:
    begin = BeginDeviceSignInRequest(device_name="terminal")
    approved, denied = [await recorded.devices.BeginDeviceSignIn(begin) for _ in range(2)]
    await recorded.devices.ApproveDevice(ApproveDeviceRequest(user_code=approved.user_code), metadata=headers)
    await recorded.devices.PollDeviceSignIn(PollDeviceSignInRequest(device_code=approved.device_code))
    await recorded.devices.DenyDevice(DenyDeviceRequest(user_code=denied.user_code), metadata=headers)


async def use_provider(recorded: RecordedClient, headers: Headers) -> str:
    fields = {"provider": "honest", "redirect_uri": REDIRECT_URI}
    begun = await recorded.providers.BeginProviderSignIn(BeginProviderSignInRequest(**fields))
    back = recorded.provider.sign_in(begun.authorization_url)
    token = begun.provider_sign_in_token
    completed = await recorded.providers.CompleteProviderSignIn(
        CompleteProviderSignInRequest(provider_sign_in_token=token, **back)
    )
    recorded.provider.subject = "subject-2"
    begun = await recorded.providers.BeginLinkProvider(BeginLinkProviderRequest(**fields), metadata=headers)
    back = recorded.provider.sign_in(begun.authorization_url)
    token = begun.provider_sign_in_token
    link = LinkProviderRequest(provider_sign_in_token=token, **back)
    linked = await recorded.providers.LinkProvider(link, metadata=headers)
    unlink = UnlinkProviderRequest(linked_provider_id=linked.linked_provider.id)
    await recorded.providers.UnlinkProvider(unlink, metadata=headers)
    account_id: str = completed.session.account_id
    return account_id


async def test_every_audited_method_writes_an_event_on_refusal(recorded: RecordedClient, dsn: str) -> None:
    headers, me = await sign_up(recorded)
    refusals = [*attempts_without_sign_in(recorded), *attempts_of_a_signed_in_caller(recorded)]
    for attempt in refusals:
        await assert_refused(attempt, headers)
    await recorded.second_factor(headers)
    again = Attempt(recorded.factors.CreateSecondFactor, CreateSecondFactorRequest(), "SECOND_FACTOR_EXISTS")
    await assert_refused(again, headers)
    new = CreateOrganizationRequest(name="Acme", slug="acme")
    await OrganizationServiceStub(recorded.client.channel).CreateOrganization(new, metadata=headers)
    gone = Attempt(recorded.accounts.DeleteAccount, DeleteAccountRequest(), "LAST_OWNER")
    await assert_refused(gone, headers)
    calls = [call for call in recorded.journal.calls if call.code != "OK"]
    found = {key: event for key, event in events(dsn).items() if event.code != "OK"}
    assert {call.method for call in calls} == REFUSABLE
    assert {call.request_id for call in calls} == found.keys()
    for call, attempt in zip(calls, [*refusals, again, gone], strict=True):
        event, method = found[call.request_id], AUDITED[call.method]
        assert (event.method, event.code, event.reason) == (call.method, call.code, attempt.reason)
        known = method.policy.access == ACCESS_SIGNED_IN or method.name == "SignIn"
        assert event.account_id == (me if known else None), method.name
        assert (event.peer, bool(event.user_agent)) == ("127.0.0.1", True)


class Attempt(NamedTuple):
    method: Any
    request: Message
    reason: str


async def assert_refused(attempt: Attempt, headers: Headers) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await attempt.method(attempt.request, metadata=headers)


def attempts_without_sign_in(recorded: RecordedClient) -> list[Attempt]:
    accounts = recorded.accounts
    callback = CompleteProviderSignInRequest(provider_sign_in_token="x", state="x", code="x")
    own_address = SignUpRequest(email=OTHER_EMAIL, password=OTHER_EMAIL, display_name="x")
    reset = ResetPasswordRequest(token="x", new_password=OTHER_PASSWORD)
    step = CompleteSignInRequest(second_step_token="x", code="123456")
    return [
        Attempt(accounts.SignUp, own_address, "INVALID_MESSAGE"),
        Attempt(accounts.SignIn, SignInRequest(email=EMAIL, password=OTHER_PASSWORD), "SIGN_IN_REFUSED"),
        Attempt(accounts.CompleteSignIn, step, "TOKEN_INVALID"),
        Attempt(accounts.VerifyEmail, VerifyEmailRequest(token="x"), "TOKEN_INVALID"),
        Attempt(accounts.ResetPassword, reset, "TOKEN_INVALID"),
        Attempt(recorded.devices.PollDeviceSignIn, PollDeviceSignInRequest(device_code="x"), "DEVICE_CODE_EXPIRED"),
        Attempt(recorded.providers.CompleteProviderSignIn, callback, "PROVIDER_SIGN_IN_FAILED"),
    ]


def attempts_of_a_signed_in_caller(recorded: RecordedClient) -> list[Attempt]:
    nothing, password = str(uuid7()), ReauthenticateRequest(password=OTHER_PASSWORD)
    stale = UpdateAccountRequest(account=Account(display_name="x", etag=str(uuid4())))
    wrong = ChangePasswordRequest(current_password=OTHER_PASSWORD, new_password="neither of the other two")
    callback = LinkProviderRequest(provider_sign_in_token="x", state="x", code="x")
    unlink, no_factor = UnlinkProviderRequest(linked_provider_id=nothing), "SECOND_FACTOR_NOT_FOUND"
    return [
        Attempt(recorded.accounts.UpdateAccount, stale, "ETAG_MISMATCH"),
        Attempt(recorded.accounts.ChangePassword, wrong, "PASSWORD_WRONG"),
        Attempt(recorded.sessions.RevokeSession, RevokeSessionRequest(session_id=nothing), "SESSION_NOT_FOUND"),
        Attempt(recorded.sessions.Reauthenticate, password, "PASSWORD_WRONG"),
        Attempt(recorded.devices.ApproveDevice, ApproveDeviceRequest(user_code="x"), "USER_CODE_NOT_FOUND"),
        Attempt(recorded.devices.DenyDevice, DenyDeviceRequest(user_code="x"), "USER_CODE_NOT_FOUND"),
        Attempt(recorded.providers.LinkProvider, callback, "PROVIDER_SIGN_IN_FAILED"),
        Attempt(recorded.providers.UnlinkProvider, unlink, "LINKED_PROVIDER_NOT_FOUND"),
        Attempt(recorded.factors.ConfirmSecondFactor, ConfirmSecondFactorRequest(code="123456"), no_factor),
        Attempt(recorded.factors.CreateRecoveryCodes, CreateRecoveryCodesRequest(), no_factor),
        Attempt(recorded.factors.DeleteSecondFactor, DeleteSecondFactorRequest(), no_factor),
    ]
