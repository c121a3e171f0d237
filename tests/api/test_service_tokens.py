"""TokenService, and its tokens: used at the gateway, and verified offline with the published keys."""

import asyncio
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import grpc
import psycopg
import pytest
from google.protobuf.json_format import MessageToDict
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from accord.accounts.v1.accounts_pb2 import SignOutRequest
from accord.services.v1.services_pb2 import (
    DisableServiceAccountRequest,
    GetJwksRequest,
    IssueTokenRequest,
    ListServiceAccountsRequest,
)
from accord.services.v1.services_pb2_grpc import ServiceAccountServiceStub, TokenServiceStub
from accord.sessions.v1.sessions_pb2 import ListSessionsRequest
from accord.sessions.v1.sessions_pb2_grpc import SessionServiceStub
from accord.tasks.v1.tasks_pb2 import CreateTaskRequest, ListTasksRequest
from accord.tasks.v1.tasks_pb2_grpc import TaskServiceStub
from accord_auth.encryption import Place
from accord_auth.providers.encodings import base64url
from accord_auth.tokens import CLIENT_PREFIX, new_token
from accord_db.queries import services
from accord_gateway.secret_key import keyring
from accord_gateway.settings import Settings
from tests.api.conftest import SECRET_KEY, Client, outcome, refusal
from tests.api.services import (
    AUDIENCE,
    OTHER_AUDIENCE,
    Service,
    exchanged,
    make_administrator,
    new_service,
    token_for,
    token_of,
)
from tests.conftest import change, count
from tests.factories import Person, activate, api_key_of, bearer, joined, organization_of

if TYPE_CHECKING:
    from accord.services.v1.services_pb2_grpc import TokenServiceAsyncStub

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
OTHER_ID = "0198c5f0-0000-7000-8000-000000000000"
LONG_AGO = 1_700_000_000


@pytest.fixture
def tokens(client: Client) -> "TokenServiceAsyncStub":
    return TokenServiceStub(client.channel)


@pytest.fixture
async def service(client: Client) -> Service:
    return await new_service(client.database)


async def jwks(channel: grpc.aio.Channel) -> dict[str, Any]:
    """The published keys, parsed from JSON as a verifier does."""
    keys: dict[str, Any] = json.loads(
        json.dumps(MessageToDict(await TokenServiceStub(channel).GetJwks(GetJwksRequest())))
    )
    return keys


def verified(token: str, keys: dict[str, Any], audience: str = AUDIENCE) -> dict[str, Any]:
    """Verifies the token as docs/services.md specifies, and returns its claims."""
    claims = jwt.decode(token, KeySet.import_key_set({"keys": keys["keys"]}), algorithms=["ES256"]).claims
    jwt.JWTClaimsRegistry(
        leeway=1,  # of the clocks of the database and this process, whose seconds do not begin together
        iss={"essential": True, "value": "accord"},
        aud={"essential": True, "value": audience},
        exp={"essential": True},
        sub={"essential": True},
    ).validate(claims)
    return claims


async def list_tasks(channel: grpc.aio.Channel, token: str) -> str:
    return await outcome(TaskServiceStub(channel).ListTasks(ListTasksRequest(), metadata=bearer(token)))


async def exchange(channel: grpc.aio.Channel, token: str, person: Person) -> str:
    return await outcome(exchanged(channel, bearer(token), person.token))


async def wait_for_reason(channel: grpc.aio.Channel, token: str, reason: str) -> None:
    """Waits at most 2 seconds: a notification takes milliseconds, and the lifetime of the cache is longer."""
    async with asyncio.timeout(2):
        while await list_tasks(channel, token) != reason:
            await asyncio.sleep(0.002)


# --- client credentials -----------------------------------------------------------------------------------------------
async def test_token_verifies_offline_with_the_published_keys(
    client: Client, service: Service, tokens: "TokenServiceAsyncStub"
) -> None:
    request = IssueTokenRequest(client_id=str(service.id), client_secret=service.secret, audience=OTHER_AUDIENCE)
    response = await tokens.IssueToken(request)
    assert response.expires_in.seconds == 300
    claims = verified(response.access_token, await jwks(client.channel), OTHER_AUDIENCE)
    assert claims.pop("exp") - claims.pop("iat") == 300
    UUID(claims.pop("jti"))
    me = str(service.id)
    assert claims == {"iss": "accord", "aud": OTHER_AUDIENCE, "sub": me, "client_id": me}


async def test_wrong_secret_unknown_client_and_disabled_client_get_the_same_error(
    client: Client, service: Service
) -> None:
    disabled, other = await new_service(client.database), await new_service(client.database)
    await services.disable_service_account(client.database, service_account_id=disabled.id)
    guesses = [
        Service(service.id, "", other.secret, uuid4()),
        Service(service.id, "", "guessed", uuid4()),
        Service(service.id, "", service.secret + "x", uuid4()),
        Service(uuid4(), "", service.secret, uuid4()),
        disabled,
    ]
    refusals = [await refusal(token_of(client.channel, guess)) for guess in guesses]
    assert {(refused.code, refused.reason) for refused in refusals} == {(UNAUTHENTICATED, "CLIENT_INVALID")}
    assert len({str(refused) for refused in refusals}) == 1


async def test_audience_that_the_account_does_not_have_is_denied(client: Client, service: Service) -> None:
    refused = await refusal(token_of(client.channel, service, "payments"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "AUDIENCE_NOT_ALLOWED")
    guess = Service(service.id, "", "guessed", uuid4())
    assert (await refusal(token_of(client.channel, guess, "payments"))).reason == "CLIENT_INVALID"


async def test_guessed_secrets_are_limited_in_the_database(client: Client, service: Service, dsn: str) -> None:
    guess = Service(service.id, "", "guessed", uuid4())
    reasons = [(await refusal(token_of(client.channel, guess))).reason for _ in range(101)]
    assert reasons == 100 * ["CLIENT_INVALID"] + ["RATE_LIMITED"]
    assert (await refusal(token_of(client.channel, service))).reason == "RATE_LIMITED"
    assert count(dsn, "rate_limits") > 0


async def test_each_of_fifty_concurrent_calls_from_one_address_gets_a_token(
    client: Client, service: Service, dsn: str
) -> None:
    tokens = await asyncio.gather(*(token_of(client.channel, service) for _ in range(50)))
    keys = await jwks(client.channel)
    assert len({verified(token, keys)["jti"] for token in tokens}) == 50
    assert count(dsn, "signing_keys") == 1


async def test_issuing_is_audited_without_the_secret(client: Client, service: Service, dsn: str) -> None:
    token = await token_of(client.channel, service)
    await refusal(token_of(client.channel, Service(service.id, "", new_token(CLIENT_PREFIX), uuid4())))
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT target, code, reason, audit_events::text FROM audit_events"
            " WHERE method = '/accord.services.v1.TokenService/IssueToken' ORDER BY id"
        ).fetchall()
    assert [row[:3] for row in rows] == [
        (str(service.id), "OK", None),
        (str(service.id), "UNAUTHENTICATED", "CLIENT_INVALID"),
    ]
    assert not any(secret in row[3] for row in rows for secret in (token, service.secret))


# --- permissions of a service -----------------------------------------------------------------------------------------
async def test_service_for_itself_may_call_only_methods_for_services(
    client: Client, service: Service, me: Person
) -> None:
    token = await token_of(client.channel, service)
    assert await exchange(client.channel, token, me) == "OK"
    assert await list_tasks(client.channel, token) == "PERMISSION_DENIED"
    accounts = ServiceAccountServiceStub(client.channel)
    listing = accounts.ListServiceAccounts(ListServiceAccountsRequest(), metadata=bearer(token))
    assert await outcome(listing) == "PERMISSION_DENIED"


async def test_users_may_not_call_methods_for_services(client: Client, me: Person, dsn: str) -> None:
    assert await exchange(client.channel, me.token, me) == "PERMISSION_DENIED"
    make_administrator(dsn, me)
    assert await exchange(client.channel, (await client.new_user()).token, me) == "PERMISSION_DENIED"


async def test_token_for_another_audience_is_invalid(client: Client, service: Service, me: Person) -> None:
    assert await exchange(client.channel, await token_of(client.channel, service, OTHER_AUDIENCE), me) == (
        "CREDENTIAL_INVALID"
    )
    for_me = await token_for(client.channel, service, me, OTHER_AUDIENCE)
    assert await list_tasks(client.channel, for_me) == "CREDENTIAL_INVALID"


@pytest.mark.parametrize("gateway_settings", [Settings(port=0, metrics_port=0, service_audience="gate")])
async def test_audience_of_the_gateway_is_a_setting(client: Client, me: Person) -> None:
    service = await new_service(client.database, "gate", AUDIENCE)
    assert await exchange(client.channel, await token_of(client.channel, service, "gate"), me) == "OK"
    assert await exchange(client.channel, await token_of(client.channel, service), me) == "CREDENTIAL_INVALID"


async def test_tokens_of_a_disabled_service_are_invalid_at_every_gateway(
    client: Client, elsewhere: grpc.aio.Channel, service: Service, me: Person, dsn: str
) -> None:
    own, for_me = await token_of(client.channel, service), await token_for(client.channel, service, me)
    for channel in (client.channel, elsewhere):
        assert [await exchange(channel, own, me), await list_tasks(channel, for_me)] == ["OK", "OK"]
    administrator = await client.new_user()
    make_administrator(dsn, administrator)
    request = DisableServiceAccountRequest(service_account_id=str(service.id))
    await ServiceAccountServiceStub(client.channel).DisableServiceAccount(request, metadata=administrator.headers)
    assert await exchange(client.channel, own, me) == "CREDENTIAL_INVALID"
    assert await list_tasks(client.channel, for_me) == "CREDENTIAL_INVALID"
    await wait_for_reason(elsewhere, for_me, "CREDENTIAL_INVALID")
    assert await exchange(elsewhere, own, me) == "CREDENTIAL_INVALID"


async def test_no_call_of_a_service_that_starts_after_the_response_of_disable_succeeds(
    client: Client, service: Service, me: Person, dsn: str
) -> None:
    token, administrator = await token_for(client.channel, service, me), await client.new_user()
    make_administrator(dsn, administrator)
    disabled, accepted_after = asyncio.Event(), 0

    async def keep_calling() -> None:
        nonlocal accepted_after
        while True:
            started_after = disabled.is_set()
            if await list_tasks(client.channel, token) != "OK":
                return
            accepted_after += started_after

    callers = [asyncio.create_task(keep_calling()) for _ in range(50)]
    assert await list_tasks(client.channel, token) == "OK"
    request = DisableServiceAccountRequest(service_account_id=str(service.id))
    await ServiceAccountServiceStub(client.channel).DisableServiceAccount(request, metadata=administrator.headers)
    disabled.set()
    await asyncio.wait_for(asyncio.gather(*callers), 20)
    assert accepted_after == 0


# --- forged tokens ----------------------------------------------------------------------------------------------------
@pytest.fixture
async def signing_key(client: Client, service: Service, dsn: str) -> ECKey:
    """The private key of the gateway, decrypted from the database."""
    await token_of(client.channel, service)
    with psycopg.connect(dsn) as connection:
        [(key_id, sealed)] = connection.execute("SELECT id, private_key FROM signing_keys").fetchall()
    settings = Settings(port=0, metrics_port=0)
    private = keyring(settings, SECRET_KEY).decrypt(sealed, Place("signing_keys", "private_key", key_id))
    return ECKey.import_key(private, {"kid": str(key_id)})


Change = Callable[[dict[str, Any], dict[str, Any]], object]


def claims_of(service: Service) -> dict[str, Any]:
    now, me = int(datetime.now(UTC).timestamp()), str(service.id)
    return {"iss": "accord", "aud": AUDIENCE, "iat": now, "exp": now + 300, "jti": "x", "client_id": me, "sub": me}


def sign(key: ECKey, header: dict[str, Any], claims: dict[str, Any]) -> str:
    return jwt.encode({"alg": "ES256", "kid": key.kid, "typ": "at+jwt"} | header, claims, key, ["ES256"])


async def test_token_with_the_right_claims_and_key_is_valid(
    client: Client, service: Service, me: Person, signing_key: ECKey
) -> None:
    assert await exchange(client.channel, sign(signing_key, {}, claims_of(service)), me) == "OK"


@pytest.mark.parametrize(
    "claim",
    [
        {"iss": "another issuer"},
        {"iss": None},
        {"aud": OTHER_AUDIENCE},
        {"aud": [AUDIENCE, OTHER_AUDIENCE]},
        {"aud": None},
        {"exp": LONG_AGO},
        {"exp": None},
        {"exp": "soon"},
        {"iat": None},
        {"sub": OTHER_ID},
        {"sub": None},
        {"client_id": OTHER_ID},
        {"client_id": None},
        {"act": {"sub": OTHER_ID}},
        {"act": {}},
        {"act": "me"},
    ],
    ids=str,
)
async def test_token_with_a_wrong_claim_is_invalid(
    client: Client, service: Service, me: Person, signing_key: ECKey, claim: dict[str, Any]
) -> None:
    claims = {name: value for name, value in (claims_of(service) | claim).items() if value is not None}
    assert await exchange(client.channel, sign(signing_key, {}, claims), me) == "CREDENTIAL_INVALID"


@pytest.mark.parametrize("header", [{"typ": "JWT"}, {"kid": OTHER_ID}, {"kid": "../x"}], ids=str)
async def test_token_with_a_wrong_header_is_invalid(
    client: Client, service: Service, me: Person, signing_key: ECKey, header: dict[str, Any]
) -> None:
    assert await exchange(client.channel, sign(signing_key, header, claims_of(service)), me) == "CREDENTIAL_INVALID"


async def test_token_signed_with_another_key_is_invalid(
    client: Client, service: Service, me: Person, signing_key: ECKey
) -> None:
    other = ECKey.generate_key("P-256", {"kid": signing_key.kid or ""})
    assert await exchange(client.channel, sign(other, {}, claims_of(service)), me) == "CREDENTIAL_INVALID"


async def test_unsigned_token_is_invalid(client: Client, service: Service, me: Person, signing_key: ECKey) -> None:
    unsigned = signing_input({"alg": "none", "kid": signing_key.kid, "typ": "at+jwt"}, claims_of(service)) + "."
    assert await exchange(client.channel, unsigned, me) == "CREDENTIAL_INVALID"
    head, body, _ = sign(signing_key, {}, claims_of(service)).split(".")
    assert await exchange(client.channel, f"{head}.{body}.", me) == "CREDENTIAL_INVALID"


async def test_token_signed_with_the_public_key_as_an_hmac_secret_is_invalid(
    client: Client, service: Service, me: Person, signing_key: ECKey
) -> None:
    header = {"alg": "HS256", "kid": signing_key.kid, "typ": "at+jwt"}
    for public in (signing_key.as_pem(private=False), json.dumps(signing_key.as_dict(private=False)).encode()):
        text = signing_input(header, claims_of(service))
        token = f"{text}.{base64url(hmac.digest(public, text.encode(), 'sha256'))}"
        assert await exchange(client.channel, token, me) == "CREDENTIAL_INVALID"


def signing_input(header: dict[str, Any], claims: dict[str, Any]) -> str:
    """The signing input of a JWT (RFC 7515, section 5.1). The library for JWTs rejects these headers."""
    return ".".join(base64url(json.dumps(part).encode()) for part in (header, claims))


@pytest.mark.parametrize("garbage", ["..", "a.b.c", "e30.e30.e30", "." * 3000, "eyJhbGciOiJFUzI1NiJ9..", "acs_.x"])
async def test_malformed_token_with_dots_is_invalid(client: Client, me: Person, garbage: str) -> None:
    assert await exchange(client.channel, garbage, me) == "CREDENTIAL_INVALID"


async def test_service_token_in_place_of_an_api_key_is_invalid(client: Client, service: Service, me: Person) -> None:
    token = await token_for(client.channel, service, me)
    assert await list_tasks(client.channel, token) == "OK"  # now the gateway has cached it
    listing = TaskServiceStub(client.channel).ListTasks(ListTasksRequest(), metadata=(("x-api-key", token),))
    assert await outcome(listing) == "CREDENTIAL_INVALID"


# --- acting for a user ------------------------------------------------------------------------------------------------
async def test_token_for_a_user_names_the_user_and_the_service(client: Client, service: Service, me: Person) -> None:
    organization_id = await organization_of(client.database, me)
    await activate(client.database, me, organization_id)
    claims = verified(await token_for(client.channel, service, me), await jwks(client.channel))
    assert {name: claims[name] for name in ("sub", "act", "client_id", "sid", "org")} == {
        "sub": str(me.account_id),
        "act": {"sub": str(service.id)},
        "client_id": str(service.id),
        "sid": str(me.session_id),
        "org": str(organization_id),
    }


async def test_service_for_a_user_has_the_permissions_of_the_user(client: Client, service: Service, me: Person) -> None:
    token = await token_for(client.channel, service, me)
    tasks = TaskServiceStub(client.channel)
    made = await tasks.CreateTask(CreateTaskRequest(title="By a service"), metadata=bearer(token))
    assert made.task.created_by == str(me.account_id)
    mine = await tasks.ListTasks(ListTasksRequest(), metadata=me.headers)
    assert [task.id for task in mine.tasks] == [made.task.id]


async def test_service_for_a_user_may_not_call_methods_that_require_the_user_in_person(
    client: Client, service: Service, me: Person, dsn: str
) -> None:
    make_administrator(dsn, me)
    token = await token_for(client.channel, service, me)
    sessions, accounts = SessionServiceStub(client.channel), ServiceAccountServiceStub(client.channel)
    for call in (
        sessions.ListSessions(ListSessionsRequest(), metadata=bearer(token)),
        accounts.ListServiceAccounts(ListServiceAccountsRequest(), metadata=bearer(token)),
    ):
        assert await outcome(call) == "PERMISSION_DENIED"
    assert await exchange(client.channel, token, me) == "PERMISSION_DENIED"


async def test_service_for_a_user_acts_in_the_organization_that_was_active_at_the_exchange(
    client: Client, service: Service, me: Person
) -> None:
    ours, other = await organization_of(client.database, me), await organization_of(client.database, me)
    await activate(client.database, me, ours)
    token = await token_for(client.channel, service, me)
    await activate(client.database, me, other)
    tasks = TaskServiceStub(client.channel)
    made = await tasks.CreateTask(CreateTaskRequest(title="Ours"), metadata=bearer(token))
    assert made.task.organization_id == str(ours)


async def test_service_for_a_user_loses_the_permissions_that_the_user_loses(
    client: Client, service: Service, me: Person, dsn: str
) -> None:
    owner = await client.new_user()
    organization_id = await organization_of(client.database, owner)
    await joined(client.database, organization_id, me)
    await activate(client.database, me, organization_id)
    token = await token_for(client.channel, service, me)
    change(dsn, "DELETE FROM members WHERE account_id = %s", me.account_id)
    assert await list_tasks(client.channel, token) == "PERMISSION_DENIED"


@pytest.mark.parametrize("kind", ["garbage", "revoked", "expired", "banned", "service token", "impersonating"])
async def test_token_that_is_not_a_valid_session_is_not_exchanged(
    client: Client, service: Service, me: Person, dsn: str, kind: str
) -> None:
    own = await token_of(client.channel, service)
    subject = {"garbage": "acs_garbage", "service token": own[:100]}.get(kind, me.token)
    if kind == "revoked":
        await client.accounts.SignOut(SignOutRequest(), metadata=me.headers)
    if kind == "expired":
        change(dsn, "UPDATE sessions SET expires_at = now() WHERE id = %s", me.session_id)
    if kind == "banned":
        change(dsn, "UPDATE accounts SET banned_at = now() WHERE id = %s", me.account_id)
    if kind == "impersonating":
        administrator = await client.new_user()
        make_administrator(dsn, administrator)
        change(dsn, "UPDATE sessions SET impersonator_id = %s WHERE id = %s", administrator.account_id, me.session_id)
    refused = await refusal(exchanged(client.channel, bearer(own), subject))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SUBJECT_TOKEN_INVALID")


async def test_api_key_is_not_exchanged(client: Client, service: Service, me: Person) -> None:
    key = await api_key_of(client.database, me, await organization_of(client.database, me))
    assert await list_tasks(client.channel, key.key) == "OK"  # now the gateway has cached it
    own = bearer(await token_of(client.channel, service))
    assert await outcome(exchanged(client.channel, own, key.key)) == "SUBJECT_TOKEN_INVALID"


async def test_exchange_for_an_audience_that_the_service_does_not_have_is_denied(
    client: Client, service: Service, me: Person
) -> None:
    assert (await refusal(token_for(client.channel, service, me, "payments"))).reason == "AUDIENCE_NOT_ALLOWED"


async def test_tokens_for_a_user_end_with_the_session_at_every_gateway(
    client: Client, elsewhere: grpc.aio.Channel, service: Service, me: Person
) -> None:
    token = await token_for(client.channel, service, me)
    assert [await list_tasks(channel, token) for channel in (client.channel, elsewhere)] == ["OK", "OK"]
    await client.accounts.SignOut(SignOutRequest(), metadata=me.headers)
    assert await list_tasks(client.channel, token) == "CREDENTIAL_INVALID"
    await wait_for_reason(elsewhere, token, "CREDENTIAL_INVALID")


async def test_token_for_a_user_is_invalid_once_its_session_is_impersonated(
    client: Client, service: Service, me: Person, dsn: str
) -> None:
    token = await token_for(client.channel, service, me)
    administrator = await client.new_user()
    make_administrator(dsn, administrator)
    change(dsn, "UPDATE sessions SET impersonator_id = %s WHERE id = %s", administrator.account_id, me.session_id)
    assert await list_tasks(client.channel, token) == "CREDENTIAL_INVALID"


async def test_audit_event_of_an_exchange_names_the_user_and_the_service(
    client: Client, service: Service, me: Person, dsn: str
) -> None:
    await token_for(client.channel, service, me)
    with psycopg.connect(dsn) as connection:
        [row] = connection.execute(
            "SELECT account_id, service_account_id, target, code FROM audit_events"
            " WHERE method = '/accord.services.v1.TokenService/ExchangeToken'"
        ).fetchall()
    assert row == (me.account_id, service.id, str(me.session_id), "OK")


async def test_cached_session_that_was_signed_out_is_not_exchanged(
    client: Client, service: Service, me: Person, dsn: str
) -> None:
    """The exchange looks up the session as the authentication of a call does."""
    assert await list_tasks(client.channel, me.token) == "OK"
    own = await token_of(client.channel, service)
    await client.accounts.SignOut(SignOutRequest(), metadata=me.headers)
    assert await exchange(client.channel, own, me) == "SUBJECT_TOKEN_INVALID"
