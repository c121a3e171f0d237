"""A malicious OpenID Connect provider creates no account, no session and no link with any known attack."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from time import time
from typing import Any

import grpc
import psycopg
import pytest

from accord.providers.v1.providers_pb2 import (
    BeginLinkProviderRequest,
    BeginProviderSignInRequest,
    BeginProviderSignInResponse,
    CompleteProviderSignInRequest,
    CompleteProviderSignInResponse,
    LinkProviderRequest,
)
from accord.providers.v1.providers_pb2_grpc import ProviderServiceStub
from accord_db.engine.database import Database
from accord_db.engine.listen import Listener
from accord_gateway.server.gateway import Runtime, build_server
from accord_gateway.settings import Settings
from tests.api.conftest import SECRET_KEY, read_refusal
from tests.api.hostile_provider import (
    CLIENT_ID,
    CLIENT_SECRET,
    REDIRECT_URI,
    TRUSTED_AUDIENCES,
    HttpResponse,
    Json,
    Provider,
    Signer,
    b64,
    hmac_signer,
    jws,
    unb64,
)
from tests.factories import signed_in_person

Mutate = Callable[[Provider], None]


def metadata(**changes: object) -> Mutate:
    def mutate(provider: Provider) -> None:
        provider.metadata = lambda honest: HttpResponse(changed(honest, changes, provider))

    return mutate


def claims(**changes: object) -> Mutate:
    def mutate(provider: Provider) -> None:
        provider.claims = lambda honest: changed(honest, changes, provider)

    return mutate


def token_response(**changes: object) -> Mutate:
    def mutate(provider: Provider) -> None:
        provider.token_response = lambda honest: HttpResponse(changed(honest, changes, provider))

    return mutate


def callback(**changes: object) -> Mutate:
    def mutate(provider: Provider) -> None:
        provider.callback = lambda honest: changed(honest, changes, provider)

    return mutate


def keys(make: Callable[[Provider], object]) -> Mutate:
    def mutate(provider: Provider) -> None:
        provider.keys = lambda _: HttpResponse(make(provider))

    return mutate


def responds_with(step: str, make: Callable[[Json], HttpResponse]) -> Mutate:
    return lambda provider: setattr(provider, step, make)


def signs(make: Callable[[Provider, bytes], str]) -> Mutate:
    def mutate(provider: Provider) -> None:
        provider.sign = lambda payload: make(provider, payload)

    return mutate


def changed(honest: Json, changes: Mapping[str, object], provider: Provider) -> Json:
    """Replaces fields. A callable computes the new value; None removes the field."""
    values = {name: value(honest, provider) if callable(value) else value for name, value in changes.items()}
    return {name: value for name, value in {**honest, **values}.items() if value is not None}


def together(*mutations: Mutate) -> Mutate:
    def mutate(provider: Provider) -> None:
        for each in mutations:
            each(provider)

    return mutate


def weak(provider: Provider) -> None:
    signer = Signer("weak", 1024)
    provider.keys = lambda _: HttpResponse({"keys": [signer.jwk]})
    provider.sign = lambda payload: jws({"alg": "RS256", "kid": "weak"}, payload, signer.sign)


def signed_by_unknown_key(provider: Provider, payload: bytes, **header: Any) -> str:
    return jws({"alg": "RS256", "kid": "unknown", **header}, payload, provider.unknown_key.sign)


def flipped(token: str) -> str:
    head, payload, signature = token.split(".")
    middle = len(signature) // 2
    other = "A" if signature[middle] != "A" else "B"
    return f"{head}.{payload}.{signature[:middle]}{other}{signature[middle + 1 :]}"


def with_other_subject(token: str) -> str:
    """Keeps the signature and replaces the payload."""
    head, payload, signature = token.split(".")
    claims = json.loads(unb64(payload)) | {"sub": "another user"}
    return f"{head}.{b64(json.dumps(claims))}.{signature}"


def unsigned(algorithm: str) -> Mutate:
    return signs(lambda _, payload: jws({"alg": algorithm}, payload, lambda _: b""))


def typed(kind: str) -> Mutate:
    return signs(lambda provider, payload: provider.signed(payload, typ=kind))


def octet_key(secret: bytes) -> Json:
    return {"kty": "oct", "k": b64(secret), "kid": "oct", "alg": "HS256"}


LONG = b'{"keys": "' + b"x" * 5_000_000 + b'"}'
DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
HTML = {"Content-Type": "text/html"}
JSON = {"Content-Type": "application/json"}

CLAIMS: Mapping[str, Mutate] = {
    "another issuer": claims(iss="https://accounts.google.com"),
    "issuer with an extra slash": claims(iss=lambda honest, _: honest["iss"] + "/"),
    "issuer in another case": claims(iss=lambda honest, _: honest["iss"].upper()),
    "no issuer": claims(iss=None),
    "issuer as a list": claims(iss=lambda honest, _: [honest["iss"]]),
    "audience of another client": claims(aud="another client"),
    "no audience": claims(aud=None),
    "empty audience": claims(aud=[]),
    "audience with our client id as a prefix": claims(aud=CLIENT_ID + "-2"),
    "several audiences without azp": claims(aud=[CLIENT_ID, "another client"]),
    "several audiences with another azp": claims(aud=[CLIENT_ID, "another client"], azp="another client"),
    "another azp": claims(azp="another client"),
    "trusted audience alone": claims(aud=list(TRUSTED_AUDIENCES)),
    "trusted audience without azp": claims(aud=[CLIENT_ID, *TRUSTED_AUDIENCES]),
    "trusted audience with another azp": claims(aud=[CLIENT_ID, *TRUSTED_AUDIENCES], azp="another client"),
    "trusted audience and another": claims(aud=[CLIENT_ID, *TRUSTED_AUDIENCES, "another client"], azp=CLIENT_ID),
    "expired": claims(exp=lambda *_: int(time()) - 3600, iat=lambda *_: int(time()) - 3700),
    "no expiry": claims(exp=None),
    "expiry as text": claims(exp="9999999999"),
    "expiry that is no number": lambda provider: setattr(
        provider, "claims", lambda honest: json.dumps({**honest, "exp": float("nan")}).encode()
    ),
    "endless expiry": lambda provider: setattr(
        provider, "claims", lambda honest: json.dumps({**honest, "exp": float("inf")}).encode()
    ),
    "expiry true": claims(exp=True),
    "issued in the future": claims(iat=lambda *_: int(time()) + 3600, exp=lambda *_: int(time()) + 7200),
    "issued long ago": claims(iat=lambda *_: int(time()) - 86_400),
    "no issue time": claims(iat=None),
    "not valid yet": claims(nbf=lambda *_: int(time()) + 3600),
    "nonce of another sign-in": claims(nonce="another nonce"),
    "no nonce": claims(nonce=None),
    "empty nonce": claims(nonce=""),
    "nonce as a list": claims(nonce=lambda honest, _: [honest["nonce"]]),
    "truncated nonce": claims(nonce=lambda honest, _: honest["nonce"][:-1]),
    "hash of another access token": claims(at_hash=b64(b"x" * 16)),
    "truncated hash of the access token": claims(at_hash=lambda honest, _: honest["at_hash"][:-4]),
    "hash of an access token as a number": claims(at_hash=1),
    "no subject": claims(sub=None),
    "empty subject": claims(sub=""),
    "subject as a number": claims(sub=7),
    "subject that is too long": claims(sub="x" * 256),
    "subject with a line break": claims(sub="subject\n-1"),
    "claims that are a list": lambda provider: setattr(
        provider, "claims", lambda honest: json.dumps([honest]).encode()
    ),
    "claims that are no JSON": lambda provider: setattr(provider, "claims", lambda _: b"sub=1"),
    "subject twice": lambda provider: setattr(
        provider, "claims", lambda honest: json.dumps(honest).encode()[:-1] + b', "sub": "another user"}'
    ),
    "claims nested deep": lambda provider: setattr(provider, "claims", lambda _: DEEP),
}
SIGNATURES: Mapping[str, Mutate] = {
    "unsigned": unsigned("none"),
    "unsigned, in another case": unsigned("NoNe"),
    "no algorithm": signs(lambda provider, payload: jws({"kid": "rsa"}, payload, provider.signer.sign)),
    "signed with the public key as a secret": signs(
        lambda provider, payload: jws({"alg": "HS256", "kid": "rsa"}, payload, hmac_signer(provider.signer.pem))
    ),
    "signed with the client's secret": signs(
        lambda _, payload: jws({"alg": "HS256"}, payload, hmac_signer(CLIENT_SECRET.encode()))
    ),
    "signed with a secret among the keys": together(
        keys(lambda _: {"keys": [octet_key(b"k" * 32)]}),
        signs(lambda _, payload: jws({"alg": "HS256", "kid": "oct"}, payload, hmac_signer(b"k" * 32))),
    ),
    "signed by an unknown key with the id of a known key": signs(
        lambda p, payload: signed_by_unknown_key(p, payload, kid="rsa")
    ),
    "signed by an unknown key": signs(signed_by_unknown_key),
    "signed by the key in its header": signs(
        lambda p, payload: signed_by_unknown_key(p, payload, jwk=p.unknown_key.jwk)
    ),
    "signed by a key at a URL in its header": signs(
        lambda p, payload: signed_by_unknown_key(p, payload, jku=f"{p.issuer}/other-keys")
    ),
    "signed by the certificate in its header": signs(
        lambda p, payload: signed_by_unknown_key(p, payload, x5c=["MIIB"], x5u=f"{p.issuer}/certificate")
    ),
    "signature missing": signs(lambda p, payload: p.signed(payload).rpartition(".")[0] + "."),
    "signature cut off": signs(lambda p, payload: p.signed(payload).rpartition(".")[0]),
    "signature with a changed letter": signs(lambda p, payload: flipped(p.signed(payload))),
    "signature of another payload": signs(lambda p, payload: with_other_subject(p.signed(payload))),
    "signature of zeros": signs(
        lambda p, payload: jws({"alg": "ES256", "kid": p.curve.kid}, payload, lambda _: bytes(64))
    ),
    "curve's algorithm with the RSA key": signs(
        lambda p, payload: jws({"alg": "ES256", "kid": "rsa"}, payload, p.signer.sign)
    ),
    "an algorithm that is not in the metadata": signs(
        lambda p, payload: jws({"alg": "RS512", "kid": "rsa"}, payload, p.signer.sign)
    ),
    "a weak key": weak,
    "an unknown critical header": signs(lambda p, payload: p.signed(payload, crit=["exp"], exp=1)),
    "a known critical header": signs(lambda p, payload: p.signed(payload, crit=["kid"])),
    "a payload that is not encoded": signs(lambda p, payload: p.signed(payload, b64=False, crit=["b64"])),
    "an access token": typed("at+jwt"),
    "a logout token": typed("logout+jwt"),
    "an encrypted token": signs(lambda p, payload: p.signed(payload) + ".AAAA.BBBB"),
    "text that is no token": signs(lambda _, payload: "token"),
    "a token in JSON": signs(lambda p, payload: json.dumps({"payload": b64(payload), "signatures": []})),
    "a key for encryption": keys(lambda p: {"keys": [{**p.signer.jwk, "use": "enc"}]}),
    "a key of another algorithm": keys(lambda p: {"keys": [{**p.signer.jwk, "alg": "PS256"}]}),
    "the key's id twice": keys(lambda p: {"keys": [{**p.unknown_key.jwk, "kid": "rsa"}, p.signer.jwk]}),
    "the key's id twice, the right one first": keys(
        lambda p: {"keys": [p.signer.jwk, {**p.unknown_key.jwk, "kid": "rsa"}]}
    ),
}
ENDPOINTS: Mapping[str, Mutate] = {
    "no keys": keys(lambda _: {"keys": []}),
    "keys that are no list": keys(lambda p: {"keys": {"rsa": p.signer.jwk}}),
    "keys that are no JSON": responds_with("keys", lambda _: HttpResponse(b"<html>")),
    "oversized keys": responds_with("keys", lambda _: HttpResponse(LONG)),
    "redirected keys": responds_with("keys", lambda _: HttpResponse(b"", 302, {"Location": "/other-keys"})),
    "no ID token": token_response(id_token=None),
    "ID token as a number": token_response(id_token=7),
    "no access token": token_response(access_token=None),
    "tokens of another type": token_response(token_type="mac"),
    "tokens as HTML": responds_with("token_response", lambda honest: HttpResponse(honest, headers=HTML)),
    "oversized tokens": responds_with("token_response", lambda _: HttpResponse(LONG)),
    "tokens nested deep": responds_with("token_response", lambda _: HttpResponse(DEEP)),
    "redirected tokens": responds_with("token_response", lambda _: HttpResponse(b"", 307, {"Location": "/token2"})),
    "tokens that are compressed": responds_with(
        "token_response", lambda honest: HttpResponse(honest, headers={**JSON, "Content-Encoding": "gzip"})
    ),
    "an error": responds_with("token_response", lambda _: HttpResponse({"error": "invalid_grant"}, 400)),
    "an error with status 200": responds_with("token_response", lambda _: HttpResponse({"error": "invalid_grant"})),
    "a server error": responds_with("token_response", lambda _: HttpResponse(b"", 500)),
    "user info of another user": together(
        claims(email=None, email_verified=None),
        responds_with("user_info", lambda honest: HttpResponse({**honest, "sub": "another user"})),
    ),
}
METADATA: Mapping[str, Mutate] = {
    "metadata of another issuer": metadata(issuer="https://accounts.google.com"),
    "metadata with an extra slash in the issuer": metadata(issuer=lambda honest, _: honest["issuer"] + "/"),
    "metadata without issuer": metadata(issuer=None),
    "token endpoint without TLS": metadata(token_endpoint="http://example.com/token"),
    "keys without TLS": metadata(jwks_uri="http://example.com/keys"),
    "keys in a file": metadata(jwks_uri="file:///etc/passwd"),
    "no URL of keys": metadata(jwks_uri=None),
    "a script as the authorization endpoint": metadata(authorization_endpoint="javascript:alert(1)"),
    "an endpoint with a password in it": metadata(token_endpoint="https://a:b@example.com/token"),
    "an endpoint with a line break": metadata(token_endpoint="https://example.com/\r\nX: y"),
    "plain PKCE": metadata(code_challenge_methods_supported=["plain"]),
    "implicit flow alone": metadata(response_types_supported=["id_token token"]),
    "unsigned tokens": metadata(id_token_signing_alg_values_supported=["none", "HS256"]),
    "redirected metadata": responds_with("metadata", lambda _: HttpResponse(b"", 302, {"Location": "/elsewhere"})),
    "oversized metadata": responds_with("metadata", lambda _: HttpResponse(LONG)),
    "metadata nested deep": responds_with("metadata", lambda _: HttpResponse(DEEP)),
    "metadata that are a list": responds_with("metadata", lambda honest: HttpResponse([honest])),
    "metadata as HTML": responds_with("metadata", lambda honest: HttpResponse(honest, headers=HTML)),
}
CALLBACKS: Mapping[str, Mutate] = {
    "state of another user": callback(state="x" * 43),
    "truncated state": callback(state=lambda honest, _: honest["state"][:-1]),
    "state with an extra character": callback(state=lambda honest, _: honest["state"] + "A"),
    "no state": callback(state=None),
    "code that was never issued": callback(code="another code"),
    "no code": callback(code=None),
    "response of another issuer": callback(issuer="https://accounts.google.com"),
    "response without an issuer": callback(issuer=None),
    "response of an issuer with an extra slash": callback(issuer=lambda honest, _: honest["issuer"] + "/"),
}
# Valid ID tokens without a verified email address.
ADDRESSES: Mapping[str, Mutate] = {
    "address that is not verified": claims(email_verified=False),
    "address without email_verified": claims(email_verified=None),
    "address verified by a word": claims(email_verified="false"),
    "address verified by a number": claims(email_verified=2),
    "address with a line break": claims(email="victim@example.com\nBcc: x@example.com"),
    "address that is none": claims(email="victim"),
    "two addresses": claims(email=["victim@example.com", "x@example.com"]),
    "address that is too long": claims(email="x" * 250 + "@example.com"),
}
MUTATIONS = {**CLAIMS, **SIGNATURES, **ENDPOINTS, **METADATA, **CALLBACKS, **ADDRESSES}
REFUSALS = {"PROVIDER_SIGN_IN_FAILED", "UNAVAILABLE", "INVALID_MESSAGE", "PROVIDER_EMAIL_NOT_VERIFIED"}


@dataclass(frozen=True)
class Client:
    """Signs in through the provider and counts the resulting rows."""

    stub: Any
    database: Database
    dsn: str

    async def begin(self) -> BeginProviderSignInResponse:
        begun: BeginProviderSignInResponse = await self.stub.BeginProviderSignIn(
            BeginProviderSignInRequest(provider="hostile", redirect_uri=REDIRECT_URI)
        )
        return begun

    async def complete(self, begun: BeginProviderSignInResponse, back: Json) -> CompleteProviderSignInResponse:
        completed: CompleteProviderSignInResponse = await self.stub.CompleteProviderSignIn(
            CompleteProviderSignInRequest(provider_sign_in_token=begun.provider_sign_in_token, **back)
        )
        return completed

    async def sign_in(self, provider: Provider) -> CompleteProviderSignInResponse:
        begun = await self.begin()
        return await self.complete(begun, provider.sign_in(begun.authorization_url))

    def rows(self) -> tuple[int, ...]:
        """Accounts, sessions and links."""
        with psycopg.connect(self.dsn) as connection:
            tables = ("accounts", "sessions", "linked_providers")
            found = [connection.execute(f"SELECT count(*) FROM {table}").fetchone() for table in tables]
        return tuple(row[0] for row in found if row)


@pytest.fixture
async def client(provider: Provider, database: Database, listener: Listener, dsn: str) -> AsyncIterator[Client]:
    providers = {"hostile": provider.settings()}
    chosen = Settings(port=0, metrics_port=0, providers=providers, provider_redirect_uris=(REDIRECT_URI,))
    gateway = build_server(Runtime(chosen, SECRET_KEY, database, listener))
    await listener.start()
    port = gateway.server.listen()
    await gateway.server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Client(ProviderServiceStub(channel), database, dsn)
    await gateway.server.stop(None)


async def reason(attempt: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(attempt, 30)
    return read_refusal(caught.value).reason


def test_there_are_enough_mutations() -> None:
    assert len(MUTATIONS) >= 100


async def test_conforming_provider_signs_a_user_in(client: Client, provider: Provider) -> None:
    completed = await client.sign_in(provider)
    assert completed.session_token
    assert completed.account_created
    assert client.rows() == (1, 1, 1)


async def test_second_key_of_a_conforming_provider_signs_a_user_in(client: Client, provider: Provider) -> None:
    signs(lambda p, payload: jws({"alg": "ES256", "kid": p.curve.kid}, payload, p.curve.sign))(provider)
    assert (await client.sign_in(provider)).session_token


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": [CLIENT_ID, *TRUSTED_AUDIENCES], "azp": CLIENT_ID},  # ZITADEL
        {"email_verified": "true"},  # Amazon Cognito and Apple
    ],
    ids=["trusted audience", "email_verified as a string"],
)
async def test_known_deviation_from_the_standard_is_accepted(
    client: Client, provider: Provider, changes: dict[str, object]
) -> None:
    claims(**changes)(provider)
    assert (await client.sign_in(provider)).account_created
    assert client.rows() == (1, 1, 1)


@pytest.mark.parametrize("mutation", MUTATIONS)
async def test_mutation_cannot_sign_in(client: Client, provider: Provider, mutation: str) -> None:
    MUTATIONS[mutation](provider)
    assert await reason(client.sign_in(provider)) in REFUSALS
    assert client.rows() == (0, 0, 0)
    assert not {"/other-keys", "/certificate", "/token2", "/elsewhere"} & set(provider.requests)


@pytest.mark.parametrize(
    "mutation",
    ["nonce of another sign-in", "audience of another client", "expired", "unsigned", "signed by an unknown key"],
)
async def test_mutation_cannot_sign_in_to_an_existing_account(
    client: Client, provider: Provider, mutation: str
) -> None:
    await client.sign_in(provider)
    MUTATIONS[mutation](provider)
    assert await reason(client.sign_in(provider)) in REFUSALS
    assert client.rows() == (1, 1, 1)


async def test_callback_of_another_sign_in_is_refused(client: Client, provider: Provider) -> None:
    """The code and state of an attacker's sign-in in a victim's browser (cross-site request forgery)."""
    mine, theirs = await client.begin(), await client.begin()
    back = provider.sign_in(theirs.authorization_url)
    assert await reason(client.complete(mine, back)) == "PROVIDER_SIGN_IN_FAILED"
    assert client.rows() == (0, 0, 0)


async def test_code_of_another_sign_in_is_refused(client: Client, provider: Provider) -> None:
    """A stolen code with the attacker's state: the ID token has the nonce of the victim."""
    mine, theirs = await client.begin(), await client.begin()
    stolen = provider.sign_in(theirs.authorization_url)["code"]
    back = provider.sign_in(mine.authorization_url) | {"code": stolen}
    assert await reason(client.complete(mine, back)) == "PROVIDER_SIGN_IN_FAILED"
    assert client.rows() == (0, 0, 0)


async def test_callback_is_accepted_once(client: Client, provider: Provider) -> None:
    begun = await client.begin()
    back = provider.sign_in(begun.authorization_url)
    await client.complete(begun, back)
    assert await reason(client.complete(begun, back)) == "PROVIDER_SIGN_IN_FAILED"
    assert client.rows() == (1, 1, 1)


async def test_one_of_fifty_concurrent_callbacks_is_accepted_even_if_the_provider_accepts_a_code_twice(
    client: Client, provider: Provider
) -> None:
    begun = await client.begin()
    back = provider.sign_in(begun.authorization_url)
    outcomes = await asyncio.gather(*(client.complete(begun, back) for _ in range(50)), return_exceptions=True)
    assert sum(isinstance(outcome, CompleteProviderSignInResponse) for outcome in outcomes) == 1
    assert provider.requests.count("/token") == 1
    assert client.rows() == (1, 1, 1)


async def test_failed_sign_in_cannot_be_retried(client: Client, provider: Provider) -> None:
    begun = await client.begin()
    back = provider.sign_in(begun.authorization_url)
    assert await reason(client.complete(begun, back | {"code": "another code"})) == "PROVIDER_SIGN_IN_FAILED"
    assert await reason(client.complete(begun, back)) == "PROVIDER_SIGN_IN_FAILED"


async def test_token_with_a_changed_character_is_refused(client: Client, provider: Provider) -> None:
    begun = await client.begin()
    back = provider.sign_in(begun.authorization_url)
    token = begun.provider_sign_in_token
    for place in range(0, len(token), 5):
        begun.provider_sign_in_token = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        assert await reason(client.complete(begun, back)) == "PROVIDER_SIGN_IN_FAILED"
    begun.provider_sign_in_token = token[:-1]
    assert await reason(client.complete(begun, back)) == "PROVIDER_SIGN_IN_FAILED"


async def test_expired_sign_in_is_refused(client: Client, provider: Provider) -> None:
    begun = await client.begin()
    with psycopg.connect(client.dsn, autocommit=True) as connection:
        connection.execute("UPDATE provider_sign_ins SET expires_at = now()")
    back = provider.sign_in(begun.authorization_url)
    assert await reason(client.complete(begun, back)) == "PROVIDER_SIGN_IN_FAILED"


async def test_redirect_uri_must_exactly_match_an_allowed_one(client: Client) -> None:
    for uri in (REDIRECT_URI + "/", REDIRECT_URI + "?x", REDIRECT_URI.upper(), "https://example.com", "javascript:1"):
        request = BeginProviderSignInRequest(provider="hostile", redirect_uri=uri)
        assert await reason(client.stub.BeginProviderSignIn(request)) == "INVALID_MESSAGE"


async def test_link_of_another_user_is_refused(client: Client, provider: Provider) -> None:
    """If a victim completed a link of an attacker, the attacker could sign in to the victim's account."""
    attacker, victim = await signed_in_person(client.database), await signed_in_person(client.database)
    begun = await client.stub.BeginLinkProvider(
        BeginLinkProviderRequest(provider="hostile", redirect_uri=REDIRECT_URI), metadata=attacker.headers
    )
    back = provider.sign_in(begun.authorization_url)
    request = LinkProviderRequest(provider_sign_in_token=begun.provider_sign_in_token, **back)
    assert await reason(client.stub.LinkProvider(request, metadata=victim.headers)) == "PROVIDER_SIGN_IN_FAILED"
    assert client.rows()[2] == 0


async def test_link_and_sign_in_are_not_interchangeable(client: Client, provider: Provider) -> None:
    me = await signed_in_person(client.database)
    link = await client.stub.BeginLinkProvider(
        BeginLinkProviderRequest(provider="hostile", redirect_uri=REDIRECT_URI), metadata=me.headers
    )
    assert await reason(client.complete(link, provider.sign_in(link.authorization_url))) == "PROVIDER_SIGN_IN_FAILED"
    begun = await client.begin()
    back = provider.sign_in(begun.authorization_url)
    request = LinkProviderRequest(provider_sign_in_token=begun.provider_sign_in_token, **back)
    assert await reason(client.stub.LinkProvider(request, metadata=me.headers)) == "PROVIDER_SIGN_IN_FAILED"
    assert client.rows()[2] == 0
