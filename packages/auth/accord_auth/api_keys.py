"""API keys. Every call verifies the key and reads its current permissions."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from accord.policy.v1.policy_pb2 import CREDENTIAL_API_KEY
from accord_auth.credential_cache import CredentialCache
from accord_auth.credentials import Authenticated
from accord_auth.tokens import API_KEY_PREFIX, new_token, token_hash, well_formed
from accord_db.engine.database import Database
from accord_db.queries.api_keys import LiveApiKey, list_live_api_keys, update_api_key_use
from accord_rpc.caller import Caller
from accord_rpc.permissions import held

# Stored in clear to identify a key to users: 48 of its 256 random bits.
_PREFIX_LENGTH: Final = 12
_USE_RECORDED_EVERY: Final = timedelta(minutes=1)


def new_api_key() -> str:
    return new_token(API_KEY_PREFIX)


def key_prefix(key: str) -> str:
    """The part that users see."""
    return key[:_PREFIX_LENGTH]


class ApiKeys:
    """Authenticates API keys. The caller is the key's creator, with the permissions that both its scopes and the creator's roles
    grant now. A personal key has those of its scopes, for the creator's own data."""

    def __init__(self, database: Database, cache: CredentialCache) -> None:
        self._database = database
        self._cache = cache

    async def authenticate(self, token: str) -> Authenticated | None:
        """None if the key is malformed, unknown, expired, revoked or superseded, if its creator is banned, deleted or no longer
        a member, or if its organization is deleted.

        Records the use of the key, at most once a minute and in a separate transaction: call it before the call's transaction
        begins."""
        key = token_hash(token)
        if found := self._cache.get(key):
            return found
        if not well_formed(token, API_KEY_PREFIX):
            return None
        return await self._cache.store(key, self._look_up(key))

    async def recheck(self, tokens: Sequence[str]) -> dict[str, Authenticated]:
        by_hash = {token_hash(token): token for token in tokens}
        live = await list_live_api_keys(self._database, key_hashes=list(by_hash))
        return {by_hash[key]: _found(api_key) for key, api_key in live.items()}

    async def _look_up(self, key: bytes) -> Authenticated | None:
        live = await list_live_api_keys(self._database, key_hashes=[key], use_recorded_every=_USE_RECORDED_EVERY)
        if (api_key := live.get(key)) is None:
            return None
        if api_key.use_is_due:
            await update_api_key_use(self._database, api_key_id=api_key.id, use_recorded_every=_USE_RECORDED_EVERY)
        return _found(api_key)


def _found(api_key: LiveApiKey) -> Authenticated:
    scopes, is_personal = held(None, api_key.scopes), api_key.organization_id is None
    caller = Caller(
        account_id=api_key.created_by,
        credential=CREDENTIAL_API_KEY,
        credential_id=api_key.id,
        authenticated_at=api_key.created_at,
        organization_id=api_key.organization_id,
        permissions=scopes if is_personal else scopes & held(api_key.role, api_key.permissions),
        calls_per_minute=api_key.calls_per_minute,
    )
    ids = (api_key.id, api_key.created_by, api_key.organization_id)
    return Authenticated(caller, tuple(id_ for id_ in ids if id_), api_key.valid_until, api_key.valid_until)
