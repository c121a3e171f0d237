"""The signing keys of service tokens, over months."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from prometheus_client import REGISTRY

from accord_auth.encryption import Keyring, Undecipherable
from accord_auth.services import ServiceTokens, SigningKeys
from accord_db.engine.database import Database
from accord_db.engine.ids import uuid7
from accord_db.queries.cleanup import delete_batch, expired_rows
from tests.conftest import Connect, change, count

MONTH = timedelta(days=30)
KEYRING = Keyring({"one": bytes(range(32))})
SERVICE: UUID = uuid7()

Jwks = Sequence[Mapping[str, str]]


def process(database: Database, keyring: Keyring = KEYRING) -> ServiceTokens:
    """A gateway that has just started, without cached keys."""
    return ServiceTokens(SigningKeys(database, keyring), database.clock, issuer="us", audience="here")


async def token_of(tokens: ServiceTokens) -> str:
    return tokens.sign(await tokens.keys.signer(), service_account_id=SERVICE, audience="here")


def verifies(token: str, keys: Jwks) -> bool:
    """Verifies as another service does, with fetched keys."""
    try:
        jwt.decode(token, KeySet.import_key_set({"keys": [dict(key) for key in keys]}), algorithms=["ES256"])
    except (JoseError, ValueError):
        return False
    return True


def kids(keys: Jwks) -> list[str]:
    return [key["kid"] for key in keys]


async def clean_up(database: Database) -> None:
    for due in expired_rows(deleted_accounts_kept=MONTH, deleted_organizations_kept=MONTH):
        await delete_batch(database, due)


async def test_first_key_signs_at_once(database: Database) -> None:
    tokens = process(database)
    token = await token_of(tokens)
    assert verifies(token, await tokens.keys.public())
    assert await tokens.verify(token) is not None


async def test_processes_that_start_together_create_one_key(connect: Connect, dsn: str) -> None:
    databases = [await connect(pool_size=2) for _ in range(5)]
    processes = [process(database) for database in databases for _ in range(4)]
    tokens = await asyncio.gather(*(token_of(each) for each in processes))
    assert count(dsn, "signing_keys") == 1
    assert all([await processes[0].verify(token) is not None for token in tokens])


async def test_keys_fetched_a_day_ago_verify_on_each_of_a_hundred_days(database: Database, dsn: str) -> None:
    yesterdays_keys, yesterdays_token, signers = await first_day(database)
    most = 0
    for _ in range(100):
        change(dsn, "UPDATE signing_keys SET created_at = created_at - interval '1 day'")
        tokens = process(database)
        token, keys = await token_of(tokens), await tokens.keys.public()
        await clean_up(database)
        assert verifies(token, yesterdays_keys)
        assert verifies(yesterdays_token, keys)
        assert await process(database).verify(yesterdays_token) is not None
        signers.append((await tokens.keys.signer()).kid)
        most, yesterdays_keys, yesterdays_token = max(most, len(keys)), keys, token
    assert len(set(signers)) == 4  # three successors
    assert signers == sorted(signers)
    assert most == 2
    assert count(dsn, "signing_keys") <= 2


async def first_day(database: Database) -> tuple[Jwks, str, list[str]]:
    tokens = process(database)
    return await tokens.keys.public(), await token_of(tokens), [(await tokens.keys.signer()).kid]


async def test_retired_key_is_deleted_and_its_tokens_are_refused(database: Database, dsn: str) -> None:
    tokens = process(database)
    token = await token_of(tokens)
    change(dsn, "UPDATE signing_keys SET created_at = created_at - interval '31 days'")
    assert len(await process(database).keys.public()) == 2  # the next key is published before it signs
    assert kids(await process(database).keys.public())[0] == (await process(database).keys.signer()).kid
    change(dsn, "UPDATE signing_keys SET created_at = created_at - interval '60 hours'")
    await clean_up(database)
    assert kids(await process(database).keys.public())[1] == (await process(database).keys.signer()).kid
    change(dsn, "UPDATE signing_keys SET created_at = created_at - interval '13 hours'")
    await clean_up(database)
    assert len(await process(database).keys.public()) == 1
    assert await process(database).verify(token) is None


async def test_only_key_is_not_deleted_at_any_age(database: Database, dsn: str) -> None:
    await token_of(process(database))
    change(dsn, "UPDATE signing_keys SET created_at = created_at - interval '10 years'")
    await clean_up(database)
    assert count(dsn, "signing_keys") == 1


async def test_running_process_switches_to_the_next_key(
    database: Database, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accord_auth.services.signing_keys._READ_INTERVAL", 0.0)
    tokens = process(database)
    first = (await tokens.keys.signer()).kid
    change(dsn, "UPDATE signing_keys SET created_at = created_at - interval '31 days'")
    assert (await tokens.keys.signer()).kid == first
    change(dsn, "UPDATE signing_keys SET created_at = created_at - interval '2 days'")
    assert (await tokens.keys.signer()).kid != first


async def test_private_keys_are_encrypted_and_not_published(database: Database, dsn: str) -> None:
    tokens = process(database)
    await tokens.keys.signer()
    [key] = await tokens.keys.public()
    assert set(key) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert count(dsn, r"signing_keys WHERE position('\x3081'::bytea in private_key) = 0") == 1  # the start of PKCS #8
    with pytest.raises(Undecipherable):
        await process(database, Keyring({"other": bytes(range(1, 33))})).keys.signer()


async def test_tokens_verify_without_the_encryption_key(database: Database) -> None:
    token = await token_of(process(database))
    assert await process(database, Keyring({"other": bytes(range(1, 33))})).verify(token) is not None


async def test_unknown_key_ids_do_not_cause_a_query_each(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accord_auth.services.signing_keys._READ_INTERVAL_FOR_UNKNOWN", 60.0)
    tokens = process(database)
    token = await token_of(tokens)
    before = queries()
    for _ in range(100):
        assert await tokens.keys.find(str(uuid4())) is None
    assert await tokens.verify(token) is not None
    assert queries() - before <= 2


def queries() -> float:
    return REGISTRY.get_sample_value("db_queries_total", {"operation": "select", "table": "signing_keys"}) or 0.0
