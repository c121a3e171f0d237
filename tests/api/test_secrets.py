"""Fills every field that the contract marks as sensitive, and searches for its values in the log, the errors, the metrics
and every table."""

import logging
import re
from base64 import b32decode
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import grpc
import psycopg
import pytest
import structlog
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from prometheus_client import generate_latest
from psycopg import sql

from accord.accounts.v1.accounts_pb2 import (
    ChangeEmailRequest,
    ChangePasswordRequest,
    CompleteSignInRequest,
    RequestPasswordResetRequest,
    ResetPasswordRequest,
    SignInRequest,
    SignUpRequest,
    VerifyEmailRequest,
)
from accord.accounts.v1.accounts_pb2_grpc import AccountServiceStub
from accord.admin.v1.admin_pb2 import ImpersonateAccountRequest
from accord.admin.v1.admin_pb2_grpc import AdminServiceStub
from accord.api_keys.v1.api_keys_pb2 import CreateApiKeyRequest, RotateApiKeyRequest
from accord.api_keys.v1.api_keys_pb2_grpc import ApiKeyServiceStub
from accord.devices.v1.devices_pb2 import (
    ApproveDeviceRequest,
    BeginDeviceSignInRequest,
    DenyDeviceRequest,
    GetDeviceSignInRequest,
    PollDeviceSignInRequest,
)
from accord.devices.v1.devices_pb2_grpc import DeviceServiceStub
from accord.invitations.v1.invitations_pb2 import (
    AcceptInvitationRequest,
    CreateInvitationRequest,
    DeclineInvitationRequest,
)
from accord.invitations.v1.invitations_pb2_grpc import InvitationServiceStub
from accord.policy.v1.policy_pb2 import PERMISSION_TASKS_READ, ROLE_MEMBER
from accord.providers.v1.providers_pb2 import (
    BeginLinkProviderRequest,
    BeginProviderSignInRequest,
    CompleteProviderSignInRequest,
    LinkProviderRequest,
)
from accord.providers.v1.providers_pb2_grpc import ProviderServiceStub
from accord.roles.v1.roles_pb2 import CreateRoleRequest
from accord.roles.v1.roles_pb2_grpc import RoleServiceStub
from accord.second_factors.v1.second_factors_pb2 import (
    ConfirmSecondFactorRequest,
    CreateRecoveryCodesRequest,
    CreateSecondFactorRequest,
)
from accord.second_factors.v1.second_factors_pb2_grpc import SecondFactorServiceStub
from accord.services.v1.services_pb2 import (
    CreateServiceAccountRequest,
    ExchangeTokenRequest,
    IssueTokenRequest,
    RotateSecretRequest,
)
from accord.services.v1.services_pb2_grpc import ServiceAccountServiceStub, TokenServiceStub
from accord.sessions.v1.sessions_pb2 import ReauthenticateRequest
from accord.sessions.v1.sessions_pb2_grpc import SessionServiceStub
from accord.tasks.v1.tasks_pb2 import CreateTaskRequest, ListTasksRequest
from accord.tasks.v1.tasks_pb2_grpc import TaskServiceStub
from accord_api.outbox import Mail
from accord_db.engine.ids import uuid7
from accord_db.engine.model import Model
from accord_db.queries.accounts import update_role
from accord_gateway.settings import Settings
from accord_rpc.contract import contract_services
from accord_rpc.fields import fields_of
from accord_rpc.policy import Method, is_sensitive, read_methods
from buf.validate import validate_pb2
from tests.api.conftest import Client
from tests.api.hostile_provider import REDIRECT_URI, Provider
from tests.api.mailbox import mailed_token
from tests.authenticator import Authenticator
from tests.factories import activate, bearer, organization_of

pytestmark = pytest.mark.every_feature

EMAIL, OTHER_EMAIL = "ada@example.com", "ada@example.org"
PASSWORD, NEXT_PASSWORD, LAST_PASSWORD = (f"canary number {number} sings" for number in ("one", "two", "three"))
METHODS: list[Method] = read_methods(contract_services())[0]
LONG = 5000  # longer than any field may be


def fields_in(message: Descriptor, seen: frozenset[str] = frozenset()) -> Iterator[FieldDescriptor]:
    if message.full_name not in seen:
        for field in message.fields:
            yield field
            if field.message_type is not None:
                yield from fields_in(field.message_type, seen | {message.full_name})


SENSITIVE = {
    field.full_name
    for method in METHODS
    for message in (method.request, method.response)
    for field in fields_in(cast(Descriptor, message.DESCRIPTOR))  # annotated as one of two classes that are one
    if is_sensitive(field)
}


class RecordingInterceptor(grpc.aio.UnaryUnaryClientInterceptor):
    """Records the values of sensitive fields in all messages of a channel, and the errors."""

    def __init__(self) -> None:
        self.secrets: defaultdict[str, set[str]] = defaultdict(set)
        self.refusals: list[str] = []

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self._keep(request)
        call = await continuation(details, request)
        try:
            self._keep(await call)
        except grpc.aio.AioRpcError as error:
            self.refusals.append(f"{error.details()} {error.trailing_metadata()!r}")
        return call

    def _keep(self, message: Message) -> None:
        for field, value in message.ListFields():
            if is_sensitive(field):
                self.secrets[field.full_name].update([value] if isinstance(value, str) else value)
            elif field.message_type is not None and not field.is_repeated:
                self._keep(value)

    @property
    def all(self) -> set[str]:
        return set().union(*self.secrets.values())


@pytest.fixture
def gateway_settings(provider: Provider) -> Settings:
    providers = {"honest": provider.settings()}
    return Settings(port=0, metrics_port=0, providers=providers, provider_redirect_uris=(REDIRECT_URI,))


@pytest.fixture
def recording() -> RecordingInterceptor:
    return RecordingInterceptor()


@pytest.fixture
async def channel(
    client: Client, gateway: tuple[Any, str], recording: RecordingInterceptor
) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(gateway[1], interceptors=[recording]) as channel:
        yield channel


async def test_no_secret_is_in_the_log_the_errors_the_metrics_or_a_table(
    client: Client,
    channel: grpc.aio.Channel,
    recording: RecordingInterceptor,
    provider: Provider,
    dsn: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    with structlog.testing.capture_logs() as log_lines:
        await call_with_valid_secrets(client, channel, provider)
        await call_with_wrong_secrets(client, channel)
    assert "accord.accounts.v1.SignInRequest.password" in SENSITIVE
    assert SENSITIVE - recording.secrets.keys() == set()
    assert len(log_lines) > len(METHODS) / 2
    assert len(recording.refusals) > len(METHODS) / 4
    places = {
        "log": "\n".join(map(repr, log_lines)) + caplog.text,
        "refusals": "\n".join(recording.refusals),
        "metrics": generate_latest().decode(),
        **tables(dsn),
    }
    empty = {place for place, text in places.items() if not text or text == "[]"}
    assert [place for place in empty if not has_no_secrets(place)] == [], "these have no text to search"
    assert {
        "accounts",
        "sessions",
        "tasks",
        "audit_events",
        "outbox_messages",
        "idempotency_keys",
    } <= places.keys() - empty
    # Values that are not secret are found, so the search works.
    assert {place for place, text in places.items() if occurs_in(OTHER_EMAIL, text)} == {"accounts"}
    assert occurs_in("AccountService/SignIn", places["log"])
    assert occurs_in("SignIn", places["metrics"])
    found = {(place, secret) for place, text in places.items() for secret in recording.all if occurs_in(secret, text)}
    assert found == set()


def has_no_secrets(place: str) -> bool:
    """True for a table of a feature whose messages have no sensitive field."""
    modules = {mapper.class_.__tablename__: mapper.class_.__module__ for mapper in Model.registry.mappers}
    package = f"accord.{modules.get(place, '').rpartition('.')[2]}."
    with_methods = any(method.service.startswith(package) for method in METHODS)
    return with_methods and not any(name.startswith(package) for name in SENSITIVE)


def occurs_in(secret: str, text: str) -> bool:
    """True if the text contains the secret, or the hexadecimal form of its bytes. A short secret must be a whole word."""
    if len(secret) <= 6:
        return re.search(rf"(?<![0-9A-Za-z.]){re.escape(secret)}(?![0-9A-Za-z])", text) is not None
    return secret in text or secret.encode().hex() in text


def tables(dsn: str) -> dict[str, str]:
    """The columns with text or bytes of each table, as one string."""
    query = """
        SELECT table_name, array_agg(column_name::text) FROM information_schema.columns
        WHERE table_schema = 'public' AND data_type IN ('text', 'bytea', 'character varying') GROUP BY table_name
    """
    with psycopg.connect(dsn) as connection:
        return {
            table: str(
                [
                    [value.hex() + repr(value) if isinstance(value, bytes) else value for value in row]
                    for row in connection.execute(
                        sql.SQL("SELECT {} FROM {}").format(
                            sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(table)
                        )
                    ).fetchall()
                ]
            )
            for table, columns in connection.execute(query).fetchall()
        }


async def call_with_valid_secrets(client: Client, channel: grpc.aio.Channel, provider: Provider) -> None:
    """Calls every method that takes or returns a secret, successfully."""
    accounts = AccountServiceStub(channel)
    await accounts.SignUp(SignUpRequest(email=EMAIL, password=PASSWORD, display_name="Ada"))
    token = await mailed_token(client.database, EMAIL, Mail.VERIFY_EMAIL)
    await accounts.VerifyEmail(VerifyEmailRequest(token=token))
    signed_in = await accounts.SignIn(SignInRequest(email=EMAIL, password=PASSWORD))
    headers = bearer(signed_in.session_token)
    headers = await two_steps(client, channel, headers)
    await accounts.ChangeEmail(ChangeEmailRequest(new_email=OTHER_EMAIL), metadata=headers)
    token = await mailed_token(client.database, OTHER_EMAIL, Mail.CHANGE_EMAIL)
    await accounts.VerifyEmail(VerifyEmailRequest(token=token))
    await accounts.ChangePassword(
        ChangePasswordRequest(current_password=PASSWORD, new_password=NEXT_PASSWORD), metadata=headers
    )
    await devices(channel, headers)
    await providers(channel, headers, provider)
    await invitations(client, channel)
    await api_keys(client, channel)
    await services(client, channel)
    await organization_work(client, channel)
    await accounts.RequestPasswordReset(RequestPasswordResetRequest(email=OTHER_EMAIL))
    token = await mailed_token(client.database, OTHER_EMAIL, Mail.RESET_PASSWORD)
    await accounts.ResetPassword(ResetPasswordRequest(token=token, new_password=LAST_PASSWORD))


async def two_steps(client: Client, channel: grpc.aio.Channel, headers: Any) -> Any:
    accounts, factors = AccountServiceStub(channel), SecondFactorServiceStub(channel)
    made = await factors.CreateSecondFactor(CreateSecondFactorRequest(), metadata=headers)
    app = await Authenticator.enrolled(client.database, b32decode(made.secret))
    confirmed = await factors.ConfirmSecondFactor(ConfirmSecondFactorRequest(code=app.code()), metadata=headers)
    first, second, *_ = confirmed.recovery_codes
    waiting = await accounts.SignIn(SignInRequest(email=EMAIL, password=PASSWORD))
    completed = await accounts.CompleteSignIn(
        CompleteSignInRequest(second_step_token=waiting.second_step_token, code=app.code(+1))
    )
    waiting = await accounts.SignIn(SignInRequest(email=EMAIL, password=PASSWORD))
    await accounts.CompleteSignIn(
        CompleteSignInRequest(second_step_token=waiting.second_step_token, recovery_code=first)
    )
    again = await SessionServiceStub(channel).Reauthenticate(
        ReauthenticateRequest(password=PASSWORD, recovery_code=second), metadata=bearer(completed.session_token)
    )
    await factors.CreateRecoveryCodes(CreateRecoveryCodesRequest(), metadata=bearer(again.session_token))
    return bearer(again.session_token)


async def devices(channel: grpc.aio.Channel, headers: Any) -> None:
    stub = DeviceServiceStub(channel)
    approved, denied = [
        await stub.BeginDeviceSignIn(BeginDeviceSignInRequest(device_name="terminal")) for _ in range(2)
    ]
    await stub.GetDeviceSignIn(GetDeviceSignInRequest(user_code=approved.user_code), metadata=headers)
    await stub.ApproveDevice(ApproveDeviceRequest(user_code=approved.user_code), metadata=headers)
    await stub.PollDeviceSignIn(PollDeviceSignInRequest(device_code=approved.device_code))
    await stub.DenyDevice(DenyDeviceRequest(user_code=denied.user_code), metadata=headers)


async def providers(channel: grpc.aio.Channel, headers: Any, provider: Provider) -> None:
    """A new user signs up, Ada links her identity and signs in with it, in two steps."""
    stub = ProviderServiceStub(channel)
    begin = {"provider": "honest", "redirect_uri": REDIRECT_URI}

    async def sign_in() -> Any:
        begun = await stub.BeginProviderSignIn(BeginProviderSignInRequest(**begin))
        back = provider.sign_in(begun.authorization_url)
        request = CompleteProviderSignInRequest(provider_sign_in_token=begun.provider_sign_in_token, **back)
        return await stub.CompleteProviderSignIn(request)

    await sign_in()
    provider.subject = "subject-2"
    link = await stub.BeginLinkProvider(BeginLinkProviderRequest(**begin), metadata=headers)
    back = provider.sign_in(link.authorization_url)
    token = link.provider_sign_in_token
    await stub.LinkProvider(LinkProviderRequest(provider_sign_in_token=token, **back), metadata=headers)
    assert (await sign_in()).second_step_token


async def invitations(client: Client, channel: grpc.aio.Channel) -> None:
    stub, inviter, guest = InvitationServiceStub(channel), await client.new_user(), await client.new_user()
    await activate(client.database, inviter, await organization_of(client.database, inviter))

    async def invited() -> str:
        request = CreateInvitationRequest(email=guest.email, role=ROLE_MEMBER)
        await stub.CreateInvitation(request, metadata=inviter.headers)
        return await mailed_token(client.database, guest.email, Mail.INVITATION)

    await stub.DeclineInvitation(DeclineInvitationRequest(token=await invited()), metadata=guest.headers)
    await stub.AcceptInvitation(AcceptInvitationRequest(token=await invited()), metadata=guest.headers)


async def api_keys(client: Client, channel: grpc.aio.Channel) -> None:
    stub, owner = ApiKeyServiceStub(channel), await client.new_user()
    await activate(client.database, owner, await organization_of(client.database, owner))
    create = CreateApiKeyRequest(name="CI", scopes=[PERMISSION_TASKS_READ])
    made = await stub.CreateApiKey(create, metadata=owner.headers)
    rotate = RotateApiKeyRequest(api_key_id=made.api_key.id, etag=made.api_key.etag, overlap=Duration(seconds=60))
    rotated = await stub.RotateApiKey(rotate, metadata=owner.headers)
    for key in (made.key, rotated.key):
        await TaskServiceStub(channel).ListTasks(ListTasksRequest(), metadata=(("x-api-key", key),))


async def organization_work(client: Client, channel: grpc.aio.Channel) -> None:
    """Calls without secrets, so that every table has a row."""
    owner = await client.new_user()
    await activate(client.database, owner, await organization_of(client.database, owner))
    role = CreateRoleRequest(name="Readers", permissions=[PERMISSION_TASKS_READ])
    await RoleServiceStub(channel).CreateRole(role, metadata=owner.headers)
    task = CreateTaskRequest(title="Mow", request_id=str(uuid7()))
    await TaskServiceStub(channel).CreateTask(task, metadata=owner.headers)


async def services(client: Client, channel: grpc.aio.Channel) -> None:
    """An administrator creates a service, which acts for itself and for a user. The administrator impersonates the user."""
    administrator, person = await client.new_user(), await client.new_user()
    await update_role(client.database, account_id=administrator.account_id, role="administrator")
    accounts, tokens, headers = ServiceAccountServiceStub(channel), TokenServiceStub(channel), administrator.headers
    made = await accounts.CreateServiceAccount(
        CreateServiceAccountRequest(name="billing", audiences=["accord"]), metadata=headers
    )
    account = made.service_account
    rotated = await accounts.RotateSecret(
        RotateSecretRequest(service_account_id=account.id, etag=account.etag), metadata=headers
    )
    issued = await tokens.IssueToken(
        IssueTokenRequest(client_id=account.id, client_secret=rotated.client_secret, audience="accord")
    )
    exchange = ExchangeTokenRequest(subject_token=person.token, audience="accord")
    exchanged = await tokens.ExchangeToken(exchange, metadata=bearer(issued.access_token))
    impersonate = ImpersonateAccountRequest(account_id=str(person.account_id), reason="support request")
    acting = await AdminServiceStub(channel).ImpersonateAccount(impersonate, metadata=headers)
    for token in (exchanged.access_token, acting.session_token):
        await TaskServiceStub(channel).ListTasks(ListTasksRequest(), metadata=bearer(token))


async def call_with_wrong_secrets(client: Client, channel: grpc.aio.Channel) -> None:
    """Calls every method that takes a secret with a wrong one and with an invalid one."""
    user = await client.new_user()
    for method in METHODS:
        if not any(is_sensitive(field) for field in fields_of(method.request)):
            continue
        call: Any = channel.unary_unary(
            method.path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=method.response.FromString,
        )
        for length in (24, LONG + 1):
            try:
                await call(wrong_request(method.request, length), metadata=user.headers)
            except grpc.aio.AioRpcError as error:
                assert error.code() is not grpc.StatusCode.INTERNAL


def wrong_request(message: type[Message], length: int) -> Message:
    """A request with canaries in its sensitive fields and valid values in the others."""
    request = message()
    for field in fields_of(message):
        rules = field.GetOptions().Extensions[validate_pb2.field].string
        if field.type != FieldDescriptor.TYPE_STRING or field.is_repeated:
            continue
        if field.containing_oneof and length > LONG and request.WhichOneof(field.containing_oneof.name):
            continue  # one message sets the first field of the oneof, the other sets the last
        if rules.pattern == "^[0-9]{6}$":
            value = "918273"
        elif is_sensitive(field):
            value = f"canary in {field.name} ".ljust(length, "x")
        else:
            value = "unknown@example.com" if rules.email else "unknown"
        setattr(request, field.name, value)
    return request
