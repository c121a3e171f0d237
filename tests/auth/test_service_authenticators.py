"""Authentication of services by token and certificate: caching, and rechecks of open streams."""

from datetime import UTC, datetime, timedelta

import pytest

from accord_auth.encryption import Keyring
from accord_auth.services import (
    ActingFor,
    CertificateAuthenticator,
    ServiceTokenAuthenticator,
    ServiceTokens,
    SigningKeys,
)
from accord_auth.sessions import Sessions
from accord_db.engine.database import Database
from accord_db.queries import services
from tests.api.services import Service, new_service
from tests.conftest import change
from tests.factories import Person, signed_in_person

NAME = "spiffe://example.com/billing"


@pytest.fixture
def tokens(database: Database) -> ServiceTokens:
    keys = SigningKeys(database, Keyring({"one": bytes(range(32))}))
    return ServiceTokens(keys, database.clock, issuer="us", audience="here")


@pytest.fixture
def authenticator(database: Database, tokens: ServiceTokens, here: Sessions) -> ServiceTokenAuthenticator:
    return ServiceTokenAuthenticator(database, tokens, here.cache)


@pytest.fixture
async def service(database: Database) -> Service:
    return await new_service(database, name="billing")


@pytest.fixture
async def person(database: Database) -> Person:
    return await signed_in_person(database)


async def token_of(tokens: ServiceTokens, service: Service, person: Person | None = None) -> str:
    acting_for = None
    if person is not None:
        acting_for = ActingFor(account_id=person.account_id, session_id=person.session_id, organization_id=None)
    signer = await tokens.keys.signer()
    return tokens.sign(signer, service_account_id=service.id, audience="here", acting_for=acting_for)


async def test_cached_service_token_is_dropped_with_its_service_session_and_account(
    authenticator: ServiceTokenAuthenticator,
    tokens: ServiceTokens,
    here: Sessions,
    service: Service,
    person: Person,
    dsn: str,
) -> None:
    token = await token_of(tokens, service, person)
    assert await authenticator.authenticate(token) is not None
    change(dsn, "UPDATE service_accounts SET disabled_at = now()")  # without a notice
    assert await authenticator.authenticate(token) is not None
    for id_ in (service.id, person.session_id, person.account_id):
        change(dsn, "UPDATE service_accounts SET disabled_at = NULL")
        assert (found := await authenticator.authenticate(token)) is not None
        assert id_ in found.ids
        change(dsn, "UPDATE service_accounts SET disabled_at = now()")
        here.forget(id_)
        assert await authenticator.authenticate(token) is None


async def test_recheck_of_service_tokens_reads_the_database(
    authenticator: ServiceTokenAuthenticator, tokens: ServiceTokens, service: Service, person: Person, dsn: str
) -> None:
    own, acting = await token_of(tokens, service), await token_of(tokens, service, person)
    assert (await authenticator.recheck([own, acting, "no.such.token"])).keys() == {own, acting}
    change(dsn, "UPDATE sessions SET revoked_at = now()")
    assert (await authenticator.recheck([own, acting])).keys() == {own}
    change(dsn, "UPDATE service_accounts SET disabled_at = now()")
    assert await authenticator.recheck([own, acting]) == {}


async def test_token_for_an_account_ends_with_its_session(
    authenticator: ServiceTokenAuthenticator, tokens: ServiceTokens, service: Service, person: Person, dsn: str
) -> None:
    change(dsn, "UPDATE sessions SET expires_at = now() + interval '1 minute'")
    found = await authenticator.authenticate(await token_of(tokens, service, person))
    assert found is not None
    assert found.valid_until is not None
    assert found.valid_until - datetime.now(UTC) <= timedelta(minutes=1)


async def test_certificate_authenticates_the_service_that_settings_name(
    database: Database, here: Sessions, service: Service
) -> None:
    authenticator = CertificateAuthenticator(database, {NAME: "billing"}, here.cache)
    found = await authenticator.authenticate(NAME)
    assert found is not None
    assert (found.caller.account_id, found.caller.service_account_id) == (service.id, service.id)
    assert (await authenticator.recheck([NAME, "spiffe://example.com/x"])).keys() == {NAME}
    await services.disable_service_account(database, service_account_id=service.id)
    assert await authenticator.recheck([NAME]) == {}
