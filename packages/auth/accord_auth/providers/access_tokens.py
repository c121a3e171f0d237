"""Storage of the tokens that providers issue, and refresh of expired access tokens."""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from accord_auth.encryption import Keyring, Place
from accord_auth.providers.errors import AccessTokenUnavailable, GrantRefused, ProviderUnreachable, SignInFailed
from accord_auth.providers.provider_identity import Tokens
from accord_db.engine.database import Database
from accord_db.engine.scope import set_deadline
from accord_db.queries import providers
from accord_db.queries.providers import EncryptedTokens, StoredTokens
from accord_db.schema.providers import RefreshFailure

if TYPE_CHECKING:
    from accord_auth.providers.provider import Provider

# The minimum remaining lifetime of a token that is returned.
_MARGIN: Final = timedelta(seconds=30)
# Longer than a refresh: two HTTP exchanges, the fetch of the metadata, and the queries.
_LEASE: Final = timedelta(seconds=20)
_POLL_SECONDS: Final = 0.05


def encrypted(keys: Keyring, tokens: Tokens, *, row_id: UUID, account_id: UUID) -> EncryptedTokens:
    """Encrypted for that row of that account: they cannot be decrypted in another one."""

    def encrypt(column: str, token: str) -> bytes:
        return keys.encrypt(token.encode(), _place(column, row_id, account_id))

    return EncryptedTokens(
        access_token=encrypt("access_token", tokens.access_token),
        refresh_token=None if tokens.refresh_token is None else encrypt("refresh_token", tokens.refresh_token),
        lifetime=tokens.lifetime,
        refresh_lifetime=tokens.refresh_lifetime,
        scopes=None if tokens.scopes is None else list(tokens.scopes),
    )


_MESSAGES: Final[Mapping[RefreshFailure, str]] = {
    "no_refresh_token": "the access token has expired, and there is no refresh token",
    "expired": "the access token has expired, and the refresh token too",
    "refused": "the provider refused the refresh token",
    "invalid_response": "the provider's response to the refresh token was invalid",
}


class _Claim(NamedTuple):
    """The right of one process to refresh the tokens of a row. Ends with a failure, which it stores and returns."""

    db: Database
    linked_provider_id: UUID
    claimed: datetime

    async def release(self, failure: RefreshFailure, detail: str = "") -> AccessTokenUnavailable:
        """Keeps the refresh token."""
        await providers.release_refresh(
            self.db, linked_provider_id=self.linked_provider_id, claimed=self.claimed, failure=failure
        )
        return _unavailable(failure, detail)

    async def end(self, failure: RefreshFailure) -> AccessTokenUnavailable:
        """Deletes the refresh token, which the provider will not accept again."""
        await providers.delete_refresh_token(
            self.db, linked_provider_id=self.linked_provider_id, claimed=self.claimed, failure=failure
        )
        return _unavailable(failure)


def _unavailable(failure: RefreshFailure, detail: str = "") -> AccessTokenUnavailable:
    return AccessTokenUnavailable(f"{_MESSAGES[failure]}{f': {detail}' if detail else ''}", failure)


class AccessTokens:
    """The tokens of one account at one provider. Providers may accept a refresh token once only, so one caller of all
    processes refreshes an expired access token while the others wait for the result."""

    def __init__(self, database: Database, keys: Keyring, provider: "Provider", account_id: UUID) -> None:
        self._db = database
        self._keys = keys
        self._provider = provider
        self._account_id = account_id

    async def get(self) -> str:
        """Raises AccessTokenUnavailable, ProviderUnreachable, Undecipherable."""
        set_deadline(None)
        stored = await self._stored()
        token = expired = self._access_token(stored)
        # A new token is returned even if its lifetime is short: the provider decides that. Tokens are compared, and not their
        # ciphertexts, which `accord rotate-keys` changes.
        while not stored.is_valid and token == expired:
            if not stored.refreshing and (refreshed := await self._refresh(stored)) is not None:
                return refreshed
            await asyncio.sleep(_POLL_SECONDS)
            stored = await self._stored()
            token = self._access_token(stored)
        return token

    def _access_token(self, stored: StoredTokens) -> str:
        return self._decrypt("access_token", stored.access_token, stored.id)

    async def _stored(self) -> StoredTokens:
        stored = await providers.get_stored_tokens(
            self._db, account_id=self._account_id, provider=self._provider.settings.name, margin=_MARGIN
        )
        if stored is None:
            raise AccessTokenUnavailable("the account has no linked identity of that provider")
        return stored

    async def _refresh(self, stored: StoredTokens) -> str | None:
        """None if another caller refreshes the token."""
        claimed = await providers.claim_refresh(
            self._db, linked_provider_id=stored.id, access_token=stored.access_token, lease=_LEASE
        )
        if claimed is None:
            return None
        claim = _Claim(self._db, stored.id, claimed)
        if stored.refresh_token is None:
            raise await claim.release(stored.failure or "no_refresh_token")
        if stored.refresh_expired:
            raise await claim.end("expired")
        refresh_token = self._decrypt("refresh_token", stored.refresh_token, stored.id)
        try:
            tokens = await self._provider.refresh(refresh_token, issuer=stored.issuer, subject=stored.subject)
        except GrantRefused:
            raise await claim.end("refused") from None
        except SignInFailed as error:
            raise await claim.release("invalid_response", str(error)) from None
        except ProviderUnreachable:
            await providers.release_refresh(self._db, linked_provider_id=stored.id, claimed=claimed)
            raise
        new = encrypted(self._keys, tokens, row_id=stored.id, account_id=self._account_id)
        await providers.update_tokens(self._db, linked_provider_id=stored.id, claimed=claimed, tokens=new)
        return tokens.access_token

    def _decrypt(self, column: str, ciphertext: bytes, row_id: UUID) -> str:
        return self._keys.decrypt(ciphertext, _place(column, row_id, self._account_id)).decode()


def _place(column: str, row_id: UUID, account_id: UUID) -> Place:
    return Place("linked_providers", column, row_id, account_id)
