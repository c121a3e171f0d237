"""Two-step sign-in: setup, sign-in with a code or a recovery code, each valid once, and deletion."""

import asyncio
from base64 import b32decode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import grpc
import psycopg
import pytest

from accord.accounts.v1.accounts_pb2 import (
    CompleteSignInRequest,
    CompleteSignInResponse,
    GetSessionRequest,
    SignInRequest,
    SignInResponse,
    SignUpRequest,
    VerifyEmailRequest,
)
from accord.second_factors.v1.second_factors_pb2 import (
    ConfirmSecondFactorRequest,
    CreateRecoveryCodesRequest,
    CreateSecondFactorRequest,
    CreateSecondFactorResponse,
    DeleteSecondFactorRequest,
    GetSecondFactorRequest,
    SecondFactor,
)
from accord.second_factors.v1.second_factors_pb2_grpc import SecondFactorServiceStub
from accord.sessions.v1.sessions_pb2 import ReauthenticateRequest
from accord.sessions.v1.sessions_pb2_grpc import SessionServiceStub
from accord_api.outbox import Mail
from accord_auth import totp
from tests.api.conftest import Client, Refusal, refusal
from tests.api.mailbox import mailed, mailed_token
from tests.api.signing_in import PASSWORD
from tests.authenticator import Authenticator
from tests.factories import Headers, Person, bearer

if TYPE_CHECKING:
    from accord.second_factors.v1.second_factors_pb2_grpc import SecondFactorServiceAsyncStub
    from accord.sessions.v1.sessions_pb2_grpc import SessionServiceAsyncStub


@pytest.fixture
def second_factors(client: Client) -> "SecondFactorServiceAsyncStub":
    return SecondFactorServiceStub(client.channel)


@pytest.fixture
def sessions(client: Client) -> "SessionServiceAsyncStub":
    return SessionServiceStub(client.channel)


@dataclass
class Ada:
    """A user with a password and an authenticator app, and her calls to the gateway."""

    client: Client
    email: str = "ada@example.com"
    headers: Headers = ()
    app: Authenticator = field(init=False, repr=False)
    recovery_codes: list[str] = field(default_factory=list)

    def code(self, off: int = 0) -> str:
        return self.app.code(off)

    async def store_secret(self, made: CreateSecondFactorResponse) -> None:
        self.app = await Authenticator.enrolled(self.client.database, b32decode(made.secret))

    async def sign_in(self) -> SignInResponse:
        return await self.client.accounts.SignIn(SignInRequest(email=self.email, password=PASSWORD))

    async def second_step(self) -> str:
        return (await self.sign_in()).second_step_token

    async def complete(self, token: str, *, code: str = "", recovery_code: str = "") -> CompleteSignInResponse:
        proof = {"recovery_code": recovery_code} if recovery_code else {"code": code}
        return await self.client.accounts.CompleteSignIn(CompleteSignInRequest(second_step_token=token, **proof))

    async def session_of(self, token: str) -> object:
        return await self.client.accounts.GetSession(GetSessionRequest(), metadata=bearer(token))


def as_ada(person: Person, client: Client) -> Ada:
    return Ada(client, person.email, person.headers)


SetUp = Callable[[Ada], Awaitable[None]]


@pytest.fixture
def set_up(second_factors: "SecondFactorServiceAsyncStub") -> SetUp:
    async def set_up(ada: Ada) -> None:
        await ada.store_secret(
            await second_factors.CreateSecondFactor(CreateSecondFactorRequest(), metadata=ada.headers)
        )
        request = ConfirmSecondFactorRequest(code=ada.code())
        confirmed = await second_factors.ConfirmSecondFactor(request, metadata=ada.headers)
        ada.recovery_codes = list(confirmed.recovery_codes)

    return set_up


@pytest.fixture
async def ada(client: Client, set_up: SetUp) -> Ada:
    """A user with a password and a second factor, and a session that is older than the factor."""
    ada = Ada(client)
    await client.accounts.SignUp(SignUpRequest(email=ada.email, password=PASSWORD, display_name="Ada"))
    token = await mailed_token(client.database, ada.email, Mail.VERIFY_EMAIL)
    await client.accounts.VerifyEmail(VerifyEmailRequest(token=token))
    ada.headers = bearer((await ada.sign_in()).session_token)
    await set_up(ada)
    return ada


@pytest.fixture
async def person(client: Client, me: Person) -> Ada:
    """A signed-in user without a password and without a second factor."""
    return as_ada(me, client)


def reason(refused: Refusal) -> tuple[grpc.StatusCode, str]:
    return refused.code, refused.reason


CODE_WRONG = (grpc.StatusCode.PERMISSION_DENIED, "CODE_WRONG")
NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "SECOND_FACTOR_NOT_FOUND")
EXISTS = (grpc.StatusCode.ALREADY_EXISTS, "SECOND_FACTOR_EXISTS")


async def test_account_with_an_unverified_email_cannot_set_up_a_second_factor(
    client: Client, second_factors: "SecondFactorServiceAsyncStub"
) -> None:
    await client.accounts.SignUp(SignUpRequest(email="victim@example.com", password=PASSWORD, display_name="Mallory"))
    signed_in = await client.accounts.SignIn(SignInRequest(email="victim@example.com", password=PASSWORD))
    headers = bearer(signed_in.session_token)
    refused = await refusal(second_factors.CreateSecondFactor(CreateSecondFactorRequest(), metadata=headers))
    assert reason(refused) == (grpc.StatusCode.FAILED_PRECONDITION, "EMAIL_NOT_VERIFIED")


async def test_authenticator_uri_has_all_parameters(
    second_factors: "SecondFactorServiceAsyncStub", person: Ada
) -> None:
    made = await second_factors.CreateSecondFactor(CreateSecondFactorRequest(), metadata=person.headers)
    uri = urlsplit(made.otpauth_uri)
    assert (uri.scheme, uri.netloc) == ("otpauth", "totp")
    assert parse_qs(uri.query)["secret"] == [made.secret]
    assert parse_qs(uri.query)["issuer"] == ["Accord"]
    assert uri.path.endswith(person.email.replace("@", "%40"))
    assert len(b32decode(made.secret)) == 20


async def test_unconfirmed_factor_is_not_required_at_sign_in(
    second_factors: "SecondFactorServiceAsyncStub", person: Ada
) -> None:
    await second_factors.CreateSecondFactor(CreateSecondFactorRequest(), metadata=person.headers)
    get = second_factors.GetSecondFactor(GetSecondFactorRequest(), metadata=person.headers)
    assert reason(await refusal(get)) == NOT_FOUND
    renew = second_factors.CreateRecoveryCodes(CreateRecoveryCodesRequest(), metadata=person.headers)
    assert reason(await refusal(renew)) == NOT_FOUND
    delete = second_factors.DeleteSecondFactor(DeleteSecondFactorRequest(), metadata=person.headers)
    assert reason(await refusal(delete)) == NOT_FOUND


async def test_confirmation_enables_the_factor_returns_ten_recovery_codes_and_notifies_the_owner(
    second_factors: "SecondFactorServiceAsyncStub", person: Ada, set_up: SetUp
) -> None:
    await set_up(person)
    assert len(set(person.recovery_codes)) == 10
    got = await second_factors.GetSecondFactor(GetSecondFactorRequest(), metadata=person.headers)
    assert got.second_factor.recovery_codes_left == 10
    assert got.second_factor.HasField("confirmed_at")
    letters = await mailed(person.client.database, person.email)
    assert [letter.template for letter in letters] == [Mail.SECOND_FACTOR_ADDED]


async def test_wrong_code_does_not_confirm_and_a_right_one_then_does(
    second_factors: "SecondFactorServiceAsyncStub", person: Ada
) -> None:
    await person.store_secret(
        await second_factors.CreateSecondFactor(CreateSecondFactorRequest(), metadata=person.headers)
    )
    request = ConfirmSecondFactorRequest(code=person.app.wrong_code())
    assert reason(await refusal(second_factors.ConfirmSecondFactor(request, metadata=person.headers))) == CODE_WRONG
    assert await mailed(person.client.database, person.email) == []
    request = ConfirmSecondFactorRequest(code=person.code())
    assert (await second_factors.ConfirmSecondFactor(request, metadata=person.headers)).recovery_codes


async def test_code_of_a_replaced_secret_is_wrong(second_factors: "SecondFactorServiceAsyncStub", person: Ada) -> None:
    await person.store_secret(
        await second_factors.CreateSecondFactor(CreateSecondFactorRequest(), metadata=person.headers)
    )
    await second_factors.CreateSecondFactor(CreateSecondFactorRequest(), metadata=person.headers)
    request = ConfirmSecondFactorRequest(code=person.code())
    assert reason(await refusal(second_factors.ConfirmSecondFactor(request, metadata=person.headers))) == CODE_WRONG


async def test_confirmation_requires_an_unconfirmed_factor(
    second_factors: "SecondFactorServiceAsyncStub", person: Ada, set_up: SetUp
) -> None:
    request = ConfirmSecondFactorRequest(code="123456")
    assert reason(await refusal(second_factors.ConfirmSecondFactor(request, metadata=person.headers))) == NOT_FOUND
    await set_up(person)
    request = ConfirmSecondFactorRequest(code=person.code(+1))
    assert reason(await refusal(second_factors.ConfirmSecondFactor(request, metadata=person.headers))) == NOT_FOUND


async def test_confirmed_factor_is_not_replaced(
    second_factors: "SecondFactorServiceAsyncStub", person: Ada, set_up: SetUp
) -> None:
    await set_up(person)
    create = second_factors.CreateSecondFactor(CreateSecondFactorRequest(), metadata=person.headers)
    assert reason(await refusal(create)) == EXISTS


@pytest.mark.parametrize("code", ["", "12345", "1234567", "12345a", " 12345", "١٢٣٤٥٦"])
async def test_malformed_code_is_an_invalid_message(
    second_factors: "SecondFactorServiceAsyncStub", person: Ada, code: str
) -> None:
    request = ConfirmSecondFactorRequest(code=code)
    refused = await refusal(second_factors.ConfirmSecondFactor(request, metadata=person.headers))
    assert (refused.reason, set(refused.violations)) == ("INVALID_MESSAGE", {"code"})
    assert not code or code not in str(refused)


async def test_factor_of_another_user_is_not_found(
    second_factors: "SecondFactorServiceAsyncStub", person: Ada, set_up: SetUp
) -> None:
    await set_up(as_ada(await person.client.new_user(), person.client))
    get = second_factors.GetSecondFactor(GetSecondFactorRequest(), metadata=person.headers)
    assert reason(await refusal(get)) == NOT_FOUND
    delete = second_factors.DeleteSecondFactor(DeleteSecondFactorRequest(), metadata=person.headers)
    assert reason(await refusal(delete)) == NOT_FOUND


async def test_one_of_several_concurrent_confirmations_succeeds(
    second_factors: "SecondFactorServiceAsyncStub", person: Ada
) -> None:
    await person.store_secret(
        await second_factors.CreateSecondFactor(CreateSecondFactorRequest(), metadata=person.headers)
    )

    async def confirm() -> str:
        request = ConfirmSecondFactorRequest(code=person.code())
        await second_factors.ConfirmSecondFactor(request, metadata=person.headers)
        return "confirmed"

    results = await asyncio.gather(*(confirm() for _ in range(10)), return_exceptions=True)
    assert results.count("confirmed") == 1, results
    letters = await mailed(person.client.database, person.email)
    assert [letter.template for letter in letters] == [Mail.SECOND_FACTOR_ADDED]


async def test_last_of_many_concurrently_created_factors_can_be_confirmed(
    second_factors: "SecondFactorServiceAsyncStub", person: Ada
) -> None:
    made = await asyncio.gather(
        *(second_factors.CreateSecondFactor(CreateSecondFactorRequest(), metadata=person.headers) for _ in range(8))
    )
    confirmed = []
    for each in made:
        await person.store_secret(each)
        request = ConfirmSecondFactorRequest(code=person.code())
        try:
            confirmed.append(await second_factors.ConfirmSecondFactor(request, metadata=person.headers))
        except grpc.aio.AioRpcError as error:
            assert error.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND)
    assert len(confirmed) == 1


async def test_sign_in_creates_a_session_only_after_its_second_step(ada: Ada) -> None:
    first = await ada.sign_in()
    assert first.session_token == ""
    assert not first.HasField("session")
    second = await ada.complete(first.second_step_token, code=ada.code(+1))
    assert await ada.session_of(second.session_token)
    assert second.session.account_id


async def test_second_step_token_is_refused_as_a_session_token(ada: Ada) -> None:
    token = await ada.second_step()
    refused = await refusal(ada.session_of(token))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID")
    await ada.complete(token, code=ada.code(+1))
    assert (await refusal(ada.session_of(token))).reason == "CREDENTIAL_INVALID"
    with_session_prefix = "acs_" + token[4:]
    assert (await refusal(ada.session_of(with_session_prefix))).reason == "CREDENTIAL_INVALID"


async def test_session_token_is_refused_as_a_second_step_token(ada: Ada) -> None:
    session_token = ada.headers[0][1].removeprefix("Bearer ")
    assert (await refusal(ada.complete(session_token, code=ada.code(+1)))).reason == "TOKEN_INVALID"


async def test_code_used_for_confirmation_is_refused_at_sign_in(ada: Ada) -> None:
    assert reason(await refusal(ada.complete(await ada.second_step(), code=ada.code()))) == CODE_WRONG


async def test_wrong_code_is_refused_and_the_token_remains_valid(ada: Ada) -> None:
    token = await ada.second_step()
    assert reason(await refusal(ada.complete(token, code=ada.app.wrong_code()))) == CODE_WRONG
    assert reason(await refusal(ada.complete(token, recovery_code="A" * 24))) == CODE_WRONG
    assert (await ada.complete(token, code=ada.code(+1))).session_token


async def test_used_code_is_refused_at_the_next_sign_in(ada: Ada) -> None:
    await ada.complete(await ada.second_step(), code=ada.code(+1))
    assert reason(await refusal(ada.complete(await ada.second_step(), code=ada.code(+1)))) == CODE_WRONG


async def test_second_step_token_creates_one_session(ada: Ada) -> None:
    token = await ada.second_step()
    await ada.complete(token, code=ada.code(+1))
    refused = await refusal(ada.complete(token, recovery_code=ada.recovery_codes[0]))
    assert refused.reason == "TOKEN_INVALID"
    # The refused call created no session, so the recovery code is still valid.
    assert (await ada.complete(await ada.second_step(), recovery_code=ada.recovery_codes[0])).session_token


async def test_recovery_code_works_once_in_any_spelling(
    second_factors: "SecondFactorServiceAsyncStub", ada: Ada
) -> None:
    code = ada.recovery_codes[3]
    assert (await ada.complete(await ada.second_step(), recovery_code=code.lower().replace("-", ""))).session_token
    assert reason(await refusal(ada.complete(await ada.second_step(), recovery_code=code))) == CODE_WRONG
    got = await second_factors.GetSecondFactor(GetSecondFactorRequest(), metadata=ada.headers)
    assert got.second_factor.recovery_codes_left == 9


async def test_new_recovery_codes_invalidate_the_former_ones(
    second_factors: "SecondFactorServiceAsyncStub", ada: Ada
) -> None:
    made = await second_factors.CreateRecoveryCodes(CreateRecoveryCodesRequest(), metadata=ada.headers)
    token = await ada.second_step()
    assert reason(await refusal(ada.complete(token, recovery_code=ada.recovery_codes[0]))) == CODE_WRONG
    assert (await ada.complete(token, recovery_code=made.recovery_codes[0])).session_token


@pytest.mark.parametrize("by", ["code", "recovery_code"])
async def test_one_of_fifty_concurrent_second_steps_with_one_code_succeeds(ada: Ada, by: str) -> None:
    """The others are refused because of their code, their token or a rate limit."""
    token = await ada.second_step()
    proof = {by: ada.code(+1) if by == "code" else ada.recovery_codes[0]}
    results = await asyncio.gather(*(ada.complete(token, **proof) for _ in range(50)), return_exceptions=True)
    completed = [each for each in results if isinstance(each, CompleteSignInResponse)]
    assert len(completed) == 1
    assert await ada.session_of(completed[0].session_token)
    others = {each.code() for each in results if isinstance(each, grpc.aio.AioRpcError)}
    assert others <= {
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }


async def test_guesses_of_codes_are_limited(ada: Ada) -> None:
    token, right = await ada.second_step(), ada.code(+1)
    reasons = [(await refusal(ada.complete(token, code=ada.app.wrong_code()))).reason for _ in range(11)]
    assert reasons == ["CODE_WRONG"] * 10 + ["RATE_LIMITED"]
    assert (await refusal(ada.complete(token, code=right))).reason == "RATE_LIMITED"
    # The guesses do not affect an open session of the user.
    assert await ada.session_of(ada.headers[0][1].removeprefix("Bearer "))


async def test_reauthentication_requires_password_and_code(sessions: "SessionServiceAsyncStub", ada: Ada) -> None:
    def reauthenticate(**proof: str) -> Awaitable[object]:
        return sessions.Reauthenticate(ReauthenticateRequest(password=PASSWORD, **proof), metadata=ada.headers)

    assert reason(await refusal(reauthenticate())) == CODE_WRONG
    assert reason(await refusal(reauthenticate(code=ada.app.wrong_code()))) == CODE_WRONG
    assert reason(await refusal(reauthenticate(code=ada.code()))) == CODE_WRONG  # already used for the confirmation
    await reauthenticate(code=ada.code(+1))


async def test_wrong_password_does_not_use_up_the_code(sessions: "SessionServiceAsyncStub", ada: Ada) -> None:
    request = ReauthenticateRequest(password="another password, long", recovery_code=ada.recovery_codes[0])
    refused = await refusal(sessions.Reauthenticate(request, metadata=ada.headers))
    assert refused.reason == "PASSWORD_WRONG"
    request.password = PASSWORD
    await sessions.Reauthenticate(request, metadata=ada.headers)


async def test_deleted_factor_is_not_required_at_sign_in_and_the_owner_is_notified(
    second_factors: "SecondFactorServiceAsyncStub", ada: Ada
) -> None:
    waiting = await ada.second_step()
    await second_factors.DeleteSecondFactor(DeleteSecondFactorRequest(), metadata=ada.headers)
    get = second_factors.GetSecondFactor(GetSecondFactorRequest(), metadata=ada.headers)
    assert reason(await refusal(get)) == NOT_FOUND
    # A sign-in that started before the deletion cannot be completed.
    assert reason(await refusal(ada.complete(waiting, code=ada.code(+1)))) == CODE_WRONG
    assert reason(await refusal(ada.complete(waiting, recovery_code=ada.recovery_codes[0]))) == CODE_WRONG
    assert (await ada.sign_in()).session_token
    letters = [letter.template for letter in await mailed(ada.client.database, ada.email)]
    assert letters[-2:] == [Mail.SECOND_FACTOR_ADDED, Mail.SECOND_FACTOR_REMOVED]


async def test_new_factor_can_be_set_up_after_deletion(
    second_factors: "SecondFactorServiceAsyncStub", person: Ada, set_up: SetUp
) -> None:
    await set_up(person)
    await second_factors.DeleteSecondFactor(DeleteSecondFactorRequest(), metadata=person.headers)
    former = person.recovery_codes
    await set_up(person)
    assert not set(former) & set(person.recovery_codes)


async def test_changes_of_a_second_factor_require_a_recent_sign_in(
    second_factors: "SecondFactorServiceAsyncStub", person: Ada, set_up: SetUp, dsn: str
) -> None:
    await set_up(person)
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "UPDATE sessions SET created_at = created_at - interval '1 day',"
            " authenticated_at = authenticated_at - interval '1 day'"
        )
        connection.execute("SELECT pg_notify('accord_sessions', id::text) FROM sessions")
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: second_factors.CreateSecondFactor(CreateSecondFactorRequest(), metadata=person.headers),
        lambda: second_factors.ConfirmSecondFactor(ConfirmSecondFactorRequest(code="123456"), metadata=person.headers),
        lambda: second_factors.CreateRecoveryCodes(CreateRecoveryCodesRequest(), metadata=person.headers),
        lambda: second_factors.DeleteSecondFactor(DeleteSecondFactorRequest(), metadata=person.headers),
    ]
    while await _succeeds(calls[2]):  # until the cached session is evicted
        await asyncio.sleep(0.002)
    assert {(await refusal(call())).reason for call in calls} == {"SIGN_IN_NOT_FRESH"}
    await second_factors.GetSecondFactor(GetSecondFactorRequest(), metadata=person.headers)


async def _succeeds(call: Callable[[], Awaitable[object]]) -> bool:
    try:
        await call()
    except grpc.aio.AioRpcError:
        return False
    return True


async def test_audit_events_name_the_factor_and_contain_no_secret(
    second_factors: "SecondFactorServiceAsyncStub", ada: Ada, dsn: str
) -> None:
    await second_factors.CreateRecoveryCodes(CreateRecoveryCodesRequest(), metadata=ada.headers)
    await second_factors.DeleteSecondFactor(DeleteSecondFactorRequest(), metadata=ada.headers)
    with psycopg.connect(dsn) as connection:
        events = connection.execute(
            "SELECT split_part(method, '/', 3), target, code, audit_events::text FROM audit_events"
            " WHERE method LIKE '%SecondFactorService%' ORDER BY id"
        ).fetchall()
    assert [(name, code) for name, _, code, _ in events] == [
        ("CreateSecondFactor", "OK"),
        ("ConfirmSecondFactor", "OK"),
        ("CreateRecoveryCodes", "OK"),
        ("DeleteSecondFactor", "OK"),
    ]
    [factor_id] = {target for _, target, _, _ in events}
    assert factor_id
    logged = " ".join(text for _, _, _, text in events)
    assert totp.secret_text(ada.app.secret) not in logged
    assert not any(code in logged for code in ada.recovery_codes)


async def test_no_row_contains_the_secret_or_a_recovery_code(ada: Ada, dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        [(factor,)] = connection.execute("SELECT second_factors::text FROM second_factors").fetchall()
        codes = connection.execute("SELECT recovery_codes::text FROM recovery_codes").fetchall()
    assert ada.app.secret.hex() not in factor
    for code in ada.recovery_codes:
        plain = code.replace("-", "").encode()
        assert not any(plain.hex() in row or plain.decode() in row for (row,) in codes)


async def test_get_second_factor_returns_the_stored_values(
    second_factors: "SecondFactorServiceAsyncStub", person: Ada, set_up: SetUp, dsn: str
) -> None:
    await set_up(person)
    with psycopg.connect(dsn) as connection:
        confirmed_at = connection.execute("SELECT confirmed_at FROM second_factors").fetchone()
    got = await second_factors.GetSecondFactor(GetSecondFactorRequest(), metadata=person.headers)
    expected = SecondFactor(recovery_codes_left=10)
    assert confirmed_at is not None
    expected.confirmed_at.FromDatetime(confirmed_at[0])
    assert got.second_factor == expected
