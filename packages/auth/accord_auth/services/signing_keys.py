"""The keys that sign tokens of services. A key is published before it signs, replaces the previous one after a month, and stays
published until every token that it signed has expired."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextvars import Context
from time import monotonic
from typing import Final, NamedTuple
from uuid import UUID

from joserfc.jwk import ECKey

from accord_auth.encryption import Keyring, Place
from accord_db.engine.database import Database, Transaction
from accord_db.engine.ids import uuid7
from accord_db.queries import signing_keys
from accord_db.queries.signing_keys import AgedKey

ALGORITHM: Final = "ES256"
_CURVE: Final = "P-256"

# Seconds between two reads of the keys: far less than a key is published before it signs.
_READ_INTERVAL: Final = 60.0
# An unknown id may belong to a key that another process has just added. Clients can send any id, so this interval limits the
# queries that they cause.
_READ_INTERVAL_FOR_UNKNOWN: Final = 1.0


class Signer(NamedTuple):
    """A private key, and the id of its public key."""

    kid: str
    key: ECKey


class _Keys(NamedTuple):
    published: Sequence[Mapping[str, str]]
    public: Mapping[str, ECKey]
    signing: AgedKey
    read_at: float  # time.monotonic


class SigningKeys:
    """One per process; all processes sign with the same key."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database = database
        self._keyring = keyring
        self._keys: _Keys | None = None
        self._reading: asyncio.Task[_Keys] | None = None
        self._signer: Signer | None = None

    async def signer(self) -> Signer:
        """Raises Undecipherable if no configured key decrypts the private key."""
        stored = (await self._read(_READ_INTERVAL)).signing
        if self._signer is None or self._signer.kid != str(stored.id):
            private = self._keyring.decrypt(stored.private_key, _place(stored.id))
            self._signer = Signer(str(stored.id), ECKey.import_key(private))
        return self._signer

    async def public(self) -> Sequence[Mapping[str, str]]:
        """The published keys as JWKs."""
        return (await self._read(_READ_INTERVAL)).published

    async def find(self, kid: str) -> ECKey | None:
        """Returns the public key, or None if the id is unknown."""
        keys = await self._read(_READ_INTERVAL)
        if kid not in keys.public:
            keys = await self._read(_READ_INTERVAL_FOR_UNKNOWN)
        return keys.public.get(kid)

    async def _read(self, seconds: float) -> _Keys:
        if self._keys is not None and monotonic() - self._keys.read_at < seconds:
            return self._keys
        if self._reading is None or self._reading.done():
            # In an empty context: several calls wait for it, so the deadline and transaction of the first must not apply.
            self._reading = asyncio.create_task(self._read_now(), name="signing keys", context=Context())
        return await asyncio.shield(self._reading)

    async def _read_now(self) -> _Keys:
        stored = await signing_keys.list_signing_keys(self._database)
        if not stored or stored[-1].old:
            stored = await self._add()
        published = [json.loads(each.public_key) for each in stored]
        public = {key["kid"]: ECKey.import_key(key) for key in published}
        # The newest key that verifiers have had time to fetch; the first key of a new installation.
        signing = next((each for each in reversed(stored) if each.known), stored[0])
        self._keys = _Keys(published, public, signing, monotonic())
        return self._keys

    async def _add(self) -> Sequence[AgedKey]:
        async with self._database.transaction() as tx:
            await signing_keys.lock_signing_keys(tx)
            stored = await signing_keys.list_signing_keys(tx)
            if not stored or stored[-1].old:  # no other process has added one meanwhile
                await self._insert(tx)
                stored = await signing_keys.list_signing_keys(tx)
        return stored

    async def _insert(self, tx: Transaction) -> None:
        key_id, key = uuid7(), ECKey.generate_key(_CURVE)
        public = {**key.as_dict(private=False), "kid": str(key_id), "use": "sig", "alg": ALGORITHM}
        await signing_keys.insert_signing_key(
            tx,
            key_id=key_id,
            private_key=self._keyring.encrypt(key.as_der(private=True), _place(key_id)),
            public_key=json.dumps(public),
        )


def _place(key_id: UUID) -> Place:
    return Place("signing_keys", "private_key", key_id)
