"""The keys that services' tokens are signed with. Each is published before it signs, follows the one before after a month,
and stays published until nothing that it has signed is good any more."""

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

# How long a process goes by what it has read. Far less than a key is published before it signs.
_READ_AGAIN: Final = 60.0
# An id that nobody has heard of may be that of a key which another process has just made, or of no key at all: anybody can
# make those up, so the database is asked about them so often at most.
_READ_FOR_UNKNOWN: Final = 1.0


class Signer(NamedTuple):
    """A private key, and the id of its public one."""

    kid: str
    key: ECKey


class _Keys(NamedTuple):
    published: Sequence[Mapping[str, str]]
    public: Mapping[str, ECKey]
    signing: AgedKey
    read_at: float  # on the clock of `time.monotonic`


class SigningKeys:
    """One per process; all processes sign with the same key."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database = database
        self._keyring = keyring
        self._keys: _Keys | None = None
        self._reading: asyncio.Task[_Keys] | None = None
        self._signer: Signer | None = None

    async def signer(self) -> Signer:
        """Raises Undecipherable if the key that encrypted it is not at hand."""
        stored = (await self._read(_READ_AGAIN)).signing
        if self._signer is None or self._signer.kid != str(stored.id):
            private = self._keyring.decrypt(stored.private_key, _place(stored.id))
            self._signer = Signer(str(stored.id), ECKey.import_key(private))
        return self._signer

    async def public(self) -> Sequence[Mapping[str, str]]:
        """All that are published, as JWKs."""
        return (await self._read(_READ_AGAIN)).published

    async def find(self, kid: str) -> ECKey | None:
        """The public key of that id."""
        keys = await self._read(_READ_AGAIN)
        if kid not in keys.public:
            keys = await self._read(_READ_FOR_UNKNOWN)
        return keys.public.get(kid)

    async def _read(self, seconds: float) -> _Keys:
        if self._keys is not None and monotonic() - self._keys.read_at < seconds:
            return self._keys
        if self._reading is None or self._reading.done():
            # Apart from the call that happens to ask first: neither its deadline nor its transaction is that of the others.
            self._reading = asyncio.create_task(self._read_now(), name="signing keys", context=Context())
        return await asyncio.shield(self._reading)

    async def _read_now(self) -> _Keys:
        stored = await signing_keys.list_signing_keys(self._database)
        if not stored or stored[-1].old:
            stored = await self._add()
        published = [json.loads(each.public_key) for each in stored]
        public = {key["kid"]: ECKey.import_key(key) for key in published}
        # Of those that verifiers have heard of, the newest; where there is none, nobody has heard of any.
        signing = next((each for each in reversed(stored) if each.known), stored[0])
        self._keys = _Keys(published, public, signing, monotonic())
        return self._keys

    async def _add(self) -> Sequence[AgedKey]:
        async with self._database.transaction() as tx:
            await signing_keys.lock_signing_keys(tx)
            stored = await signing_keys.list_signing_keys(tx)
            if not stored or stored[-1].old:  # and nobody was faster
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
