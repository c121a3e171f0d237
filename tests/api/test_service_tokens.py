"""TokenService, and what its tokens are good for: here, and to those who verify them by the published keys alone."""

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
SOMEBODY = "0198c5f0-0000-7000-8000-000000000000"
LONG_AGO = 1_700_000_000


@pytest.fixture
def tokens(client: Client) -> "TokenServiceAsyncStub":
    return TokenServiceStub(client.channel)


@pytest.fixture
async def service(client: Client) -> Service:
    return await new_service(client.database)


async def jwks(channel: grpc.aio.Channel) -> dict[str, Any]:
    """As a verifier keeps it: JSON."""
    answer: dict[str, Any] = json.loads(
        json.dumps(MessageToDict(await TokenServiceStub(channel).GetJwks(GetJwksRequest())))
    )
    return answer


def verified(token: str, keys: dict[str, Any], audience: str = AUDIENCE) -> dict[str, Any]:
    """What docs/services.md tells a service to do."""
    claims = jwt.decode(token, KeySet.import_key_set({"keys": keys["keys"]}), algorithms=["ES256"]).claims
    jwt.JWTClaimsRegistry(
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


async def until(channel: grpc.aio.Channel, token: str, reason: str) -> None:
    """A notice takes a millisecond; the cache alone would keep it for seconds."""
    async with asyncio.timeout(2):
        while await list_tasks(channel, token) != reason:
            await asyncio.sleep(0.002)


# --- client credentials -----------------------------------------------------------------------------------------------
async def test_a_token_verifies_offline_by_the_published_keys(
    client: Client, service: Service, tokens: "TokenServiceAsyncStub"
) -> None:
    request = IssueTokenRequest(client_id=str(service.id), client_secret=service.secret, audience=OTHER_AUDIENCE)
    answer = await tokens.IssueToken(request)
    assert answer.expires_in.seconds == 300
    claims = verified(answer.access_token, await jwks(client.channel), OTHER_AUDIENCE)
    assert claims.pop("exp") - claims.pop("iat") == 300
    UUID(claims.pop("jti"))
    me = str(service.id)
    assert claims == {"iss": "accord", "aud": OTHER_AUDIENCE, "sub": me, "client_id": me}


async def test_a_wrong_secret_an_unknown_client_and_a_disabled_one_are_answered_alike(
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
    answers = [await refusal(token_of(client.channel, guess)) for guess in guesses]
    assert {(answer.code, answer.reason) for answer in answers} == {(UNAUTHENTICATED, "CLIENT_INVALID")}
    assert len({str(answer) for answer in answers}) == 1


async def test_an_audience_that_the_account_does_not_have_is_refused(client: Client, service: Service) -> None:
    refused = await refusal(token_of(client.channel, service, "payments"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "AUDIENCE_NOT_ALLOWED")
    nobody = Service(service.id, "", "guessed", uuid4())
    assert (await refusal(token_of(client.channel, nobody, "payments"))).reason == "CLIENT_INVALID"


async def test_guesses_are_limited_in_the_database(client: Client, service: Service, dsn: str) -> None:
    guess = Service(service.id, "", "guessed", uuid4())
    reasons = [(await refusal(token_of(client.channel, guess))).reason for _ in range(101)]
    assert reasons == 100 * ["CLIENT_INVALID"] + ["RATE_LIMITED"]
    assert (await refusal(token_of(client.channel, service))).reason == "RATE_LIMITED"
    assert count(dsn, "rate_limits") > 0


async def test_fifty_who_start_at_once_behind_one_address_each_get_a_token(
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


# --- what a service may do here ---------------------------------------------------------------------------------------
async def test_a_service_for_itself_calls_what_is_for_services_and_nothing_of_people(
    client: Client, service: Service, me: Person
) -> None:
    token = await token_of(client.channel, service)
    assert await exchange(client.channel, token, me) == "OK"
    assert await list_tasks(client.channel, token) == "PERMISSION_DENIED"
    accounts = ServiceAccountServiceStub(client.channel)
    listing = accounts.ListServiceAccounts(ListServiceAccountsRequest(), metadata=bearer(token))
    assert await outcome(listing) == "PERMISSION_DENIED"


async def test_people_cannot_call_what_is_for_services(client: Client, me: Person, dsn: str) -> None:
    assert await exchange(client.channel, me.token, me) == "PERMISSION_DENIED"
    make_administrator(dsn, me)
    assert await exchange(client.channel, (await client.new_user()).token, me) == "PERMISSION_DENIED"


async def test_a_token_for_another_audience_is_refused_here(client: Client, service: Service, me: Person) -> None:
    assert await exchange(client.channel, await token_of(client.channel, service, OTHER_AUDIENCE), me) == (
        "CREDENTIAL_INVALID"
    )
    for_me = await token_for(client.channel, service, me, OTHER_AUDIENCE)
    assert await list_tasks(client.channel, for_me) == "CREDENTIAL_INVALID"


@pytest.mark.parametrize("gateway_settings", [Settings(port=0, metrics_port=0, service_audience="gate")])
async def test_the_audience_of_this_gateway_is_a_setting(client: Client, me: Person) -> None:
    service = await new_service(client.database, "gate", AUDIENCE)
    assert await exchange(client.channel, await token_of(client.channel, service, "gate"), me) == "OK"
    assert await exchange(client.channel, await token_of(client.channel, service), me) == "CREDENTIAL_INVALID"


async def test_a_disabled_service_is_refused_at_its_next_call_everywhere(
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
    await until(elsewhere, for_me, "CREDENTIAL_INVALID")
    assert await exchange(elsewhere, own, me) == "CREDENTIAL_INVALID"


async def test_nothing_of_a_service_is_accepted_after_the_answer_that_it_is_disabled(
    client: Client, service: Service, me: Person, dsn: str
) -> None:
    token, administrator = await token_for(client.channel, service, me), await client.new_user()
    make_administrator(dsn, administrator)
    disabled, accepted_after = asyncio.Event(), 0

    async def use() -> None:
        nonlocal accepted_after
        while True:
            began_after = disabled.is_set()
            if await list_tasks(client.channel, token) != "OK":
                return
            accepted_after += began_after

    users = [asyncio.create_task(use()) for _ in range(50)]
    assert await list_tasks(client.channel, token) == "OK"
    request = DisableServiceAccountRequest(service_account_id=str(service.id))
    await ServiceAccountServiceStub(client.channel).DisableServiceAccount(request, metadata=administrator.headers)
    disabled.set()
    await asyncio.wait_for(asyncio.gather(*users), 20)
    assert accepted_after == 0


# --- forged tokens ----------------------------------------------------------------------------------------------------
@pytest.fixture
async def signing_key(client: Client, service: Service, dsn: str) -> ECKey:
    """The private one, which nobody has but the gateway and this test."""
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


def signed(key: ECKey, header: dict[str, Any], claims: dict[str, Any]) -> str:
    return jwt.encode({"alg": "ES256", "kid": key.kid, "typ": "at+jwt"} | header, claims, key, ["ES256"])


async def test_a_token_with_the_right_claims_of_the_right_key_is_good(
    client: Client, service: Service, me: Person, signing_key: ECKey
) -> None:
    assert await exchange(client.channel, signed(signing_key, {}, claims_of(service)), me) == "OK"


@pytest.mark.parametrize(
    "wrong",
    [
        {"iss": "somebody"},
        {"iss": None},
        {"aud": OTHER_AUDIENCE},
        {"aud": [AUDIENCE, OTHER_AUDIENCE]},
        {"aud": None},
        {"exp": LONG_AGO},
        {"exp": None},
        {"exp": "soon"},
        {"iat": None},
        {"sub": SOMEBODY},
        {"sub": None},
        {"client_id": SOMEBODY},
        {"client_id": None},
        {"act": {"sub": SOMEBODY}},
        {"act": {}},
        {"act": "me"},
    ],
    ids=str,
)
async def test_a_token_with_a_wrong_claim_is_refused(
    client: Client, service: Service, me: Person, signing_key: ECKey, wrong: dict[str, Any]
) -> None:
    claims = {name: value for name, value in (claims_of(service) | wrong).items() if value is not None}
    assert await exchange(client.channel, signed(signing_key, {}, claims), me) == "CREDENTIAL_INVALID"


@pytest.mark.parametrize("header", [{"typ": "JWT"}, {"kid": SOMEBODY}, {"kid": "../x"}], ids=str)
async def test_a_token_with_a_wrong_header_is_refused(
    client: Client, service: Service, me: Person, signing_key: ECKey, header: dict[str, Any]
) -> None:
    assert await exchange(client.channel, signed(signing_key, header, claims_of(service)), me) == "CREDENTIAL_INVALID"


async def test_a_token_that_another_key_has_signed_is_refused(
    client: Client, service: Service, me: Person, signing_key: ECKey
) -> None:
    other = ECKey.generate_key("P-256", {"kid": signing_key.kid or ""})
    assert await exchange(client.channel, signed(other, {}, claims_of(service)), me) == "CREDENTIAL_INVALID"


async def test_a_token_that_nobody_has_signed_is_refused(
    client: Client, service: Service, me: Person, signing_key: ECKey
) -> None:
    unsigned = written({"alg": "none", "kid": signing_key.kid, "typ": "at+jwt"}, claims_of(service)) + "."
    assert await exchange(client.channel, unsigned, me) == "CREDENTIAL_INVALID"
    head, body, _ = signed(signing_key, {}, claims_of(service)).split(".")
    assert await exchange(client.channel, f"{head}.{body}.", me) == "CREDENTIAL_INVALID"


async def test_a_token_signed_with_the_public_key_as_a_secret_is_refused(
    client: Client, service: Service, me: Person, signing_key: ECKey
) -> None:
    header = {"alg": "HS256", "kid": signing_key.kid, "typ": "at+jwt"}
    for public in (signing_key.as_pem(private=False), json.dumps(signing_key.as_dict(private=False)).encode()):
        text = written(header, claims_of(service))
        token = f"{text}.{base64url(hmac.digest(public, text.encode(), 'sha256'))}"
        assert await exchange(client.channel, token, me) == "CREDENTIAL_INVALID"


def written(header: dict[str, Any], claims: dict[str, Any]) -> str:
    """What is to be signed, by a library that would write anything."""
    return ".".join(base64url(json.dumps(part).encode()) for part in (header, claims))


@pytest.mark.parametrize("garbage", ["..", "a.b.c", "e30.e30.e30", "." * 3000, "eyJhbGciOiJFUzI1NiJ9..", "acs_.x"])
async def test_garbage_with_dots_is_refused(client: Client, me: Person, garbage: str) -> None:
    assert await exchange(client.channel, garbage, me) == "CREDENTIAL_INVALID"


async def test_a_token_for_a_service_in_place_of_an_api_key_is_refused(
    client: Client, service: Service, me: Person
) -> None:
    token = await token_for(client.channel, service, me)
    assert await list_tasks(client.channel, token) == "OK"  # and so it is remembered
    listing = TaskServiceStub(client.channel).ListTasks(ListTasksRequest(), metadata=(("x-api-key", token),))
    assert await outcome(listing) == "CREDENTIAL_INVALID"


# --- acting for a person ----------------------------------------------------------------------------------------------
async def test_a_token_that_acts_for_a_person_names_both(client: Client, service: Service, me: Person) -> None:
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


async def test_a_service_acts_for_a_person_with_what_they_may_do(client: Client, service: Service, me: Person) -> None:
    token = await token_for(client.channel, service, me)
    tasks = TaskServiceStub(client.channel)
    made = await tasks.CreateTask(CreateTaskRequest(title="By a service"), metadata=bearer(token))
    assert made.task.created_by == str(me.account_id)
    mine = await tasks.ListTasks(ListTasksRequest(), metadata=me.headers)
    assert [task.id for task in mine.tasks] == [made.task.id]


async def test_whoever_acts_for_a_person_reaches_no_method_that_wants_the_person(
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


async def test_a_service_acts_in_the_organization_that_was_active_then(
    client: Client, service: Service, me: Person
) -> None:
    ours, other = await organization_of(client.database, me), await organization_of(client.database, me)
    await activate(client.database, me, ours)
    token = await token_for(client.channel, service, me)
    await activate(client.database, me, other)
    tasks = TaskServiceStub(client.channel)
    made = await tasks.CreateTask(CreateTaskRequest(title="Ours"), metadata=bearer(token))
    assert made.task.organization_id == str(ours)


async def test_a_service_may_no_more_than_its_person_may_now(
    client: Client, service: Service, me: Person, dsn: str
) -> None:
    boss = await client.new_user()
    organization_id = await organization_of(client.database, boss)
    await joined(client.database, organization_id, me)
    await activate(client.database, me, organization_id)
    token = await token_for(client.channel, service, me)
    change(dsn, "DELETE FROM members WHERE account_id = %s", me.account_id)
    assert await list_tasks(client.channel, token) == "PERMISSION_DENIED"


@pytest.mark.parametrize("kind", ["garbage", "revoked", "expired", "banned", "service token", "impersonating"])
async def test_what_is_not_a_good_session_of_the_person_is_not_exchanged(
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


async def test_a_key_that_somebody_has_made_is_not_their_session(client: Client, service: Service, me: Person) -> None:
    key = await api_key_of(client.database, me, await organization_of(client.database, me))
    assert await list_tasks(client.channel, key.key) == "OK"  # and so it is remembered
    own = bearer(await token_of(client.channel, service))
    assert await outcome(exchanged(client.channel, own, key.key)) == "SUBJECT_TOKEN_INVALID"


async def test_an_audience_that_the_service_does_not_have_is_not_to_be_had_by_exchange(
    client: Client, service: Service, me: Person
) -> None:
    assert (await refusal(token_for(client.channel, service, me, "payments"))).reason == "AUDIENCE_NOT_ALLOWED"


async def test_a_session_that_ends_ends_what_acts_in_it_everywhere(
    client: Client, elsewhere: grpc.aio.Channel, service: Service, me: Person
) -> None:
    token = await token_for(client.channel, service, me)
    assert [await list_tasks(channel, token) for channel in (client.channel, elsewhere)] == ["OK", "OK"]
    await client.accounts.SignOut(SignOutRequest(), metadata=me.headers)
    assert await list_tasks(client.channel, token) == "CREDENTIAL_INVALID"
    await until(elsewhere, token, "CREDENTIAL_INVALID")


async def test_a_session_that_became_that_of_an_administrator_who_acts_as_somebody_serves_no_service(
    client: Client, service: Service, me: Person, dsn: str
) -> None:
    token = await token_for(client.channel, service, me)
    administrator = await client.new_user()
    make_administrator(dsn, administrator)
    change(dsn, "UPDATE sessions SET impersonator_id = %s WHERE id = %s", administrator.account_id, me.session_id)
    assert await list_tasks(client.channel, token) == "CREDENTIAL_INVALID"


async def test_both_are_in_the_audit_row(client: Client, service: Service, me: Person, dsn: str) -> None:
    await token_for(client.channel, service, me)
    with psycopg.connect(dsn) as connection:
        [row] = connection.execute(
            "SELECT account_id, service_account_id, target, code FROM audit_events"
            " WHERE method = '/accord.services.v1.TokenService/ExchangeToken'"
        ).fetchall()
    assert row == (me.account_id, service.id, str(me.session_id), "OK")


async def test_a_remembered_session_does_not_outlive_its_row_in_an_exchange(
    client: Client, service: Service, me: Person, dsn: str
) -> None:
    """The exchange goes by what any call goes by: no later than a sign-out, whichever process it was in."""
    assert await list_tasks(client.channel, me.token) == "OK"
    own = await token_of(client.channel, service)
    await client.accounts.SignOut(SignOutRequest(), metadata=me.headers)
    assert await exchange(client.channel, own, me) == "SUBJECT_TOKEN_INVALID"
