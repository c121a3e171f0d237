"""Providers' tokens, as they are stored, and a new access token when the old one has expired."""

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from accord_auth.encryption import Keyring, Place
from accord_auth.providers.faults import AccessTokenUnavailable, GrantRefused, ProviderUnreachable, SignInFailed
from accord_auth.providers.proofs import Tokens
from accord_db.engine.database import Database
from accord_db.engine.scope import set_deadline
from accord_db.queries import providers
from accord_db.queries.providers import EncryptedTokens, StoredTokens

if TYPE_CHECKING:
    from accord_auth.providers.provider import Provider

# A token that is handed out is good for so long at least.
_MARGIN: Final = timedelta(seconds=30)
# To refresh takes two exchanges at most, with metadata fetched before, and what the database needs.
_LEASE: Final = timedelta(seconds=20)
_LOOK_AGAIN: Final = 0.05  # seconds


def encrypted(keys: Keyring, tokens: Tokens, *, row_id: UUID, account_id: UUID) -> EncryptedTokens:
    """To be stored in that row of that account, where alone they can be read again."""

    def seal(column: str, token: str) -> bytes:
        return keys.encrypt(token.encode(), _place(column, row_id, account_id))

    return EncryptedTokens(
        access_token=seal("access_token", tokens.access_token),
        refresh_token=None if tokens.refresh_token is None else seal("refresh_token", tokens.refresh_token),
        lifetime=tokens.lifetime,
    )


class AccessTokens:
    """Those of one account at one provider. A refresh token may be good for one use only: so of all who find an access
    token expired, in any process, one refreshes it, and the others wait for what comes of it."""

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
        # A new token is returned even if it expires soon: the provider sets its lifetime. The tokens are compared, and not
        # their ciphertexts, which `accord rotate-keys` changes.
        while not stored.is_good and token == expired:
            if not stored.refreshing and (refreshed := await self._refreshed(stored)) is not None:
                return refreshed
            await asyncio.sleep(_LOOK_AGAIN)
            stored = await self._stored()
            token = self._access_token(stored)
        return token

    def _access_token(self, stored: StoredTokens) -> str:
        return self._decrypted("access_token", stored.access_token, stored.id)

    async def _stored(self) -> StoredTokens:
        stored = await providers.get_stored_tokens(
            self._db, account_id=self._account_id, provider=self._provider.settings.name, margin=_MARGIN
        )
        if stored is None:
            raise AccessTokenUnavailable("no identity of that provider is linked to the account")
        return stored

    async def _refreshed(self, stored: StoredTokens) -> str | None:
        """None if somebody else was faster."""
        if stored.refresh_token is None:
            raise AccessTokenUnavailable("the access token has expired, and there is none to refresh it")
        claimed = await providers.claim_refresh(
            self._db, linked_provider_id=stored.id, access_token=stored.access_token, lease=_LEASE
        )
        if claimed is None:
            return None
        refresh_token = self._decrypted("refresh_token", stored.refresh_token, stored.id)
        try:
            tokens = await self._provider.refresh(refresh_token, issuer=stored.issuer, subject=stored.subject)
        except GrantRefused as refused:
            await providers.forget_refresh_token(self._db, linked_provider_id=stored.id, claimed=claimed)
            raise AccessTokenUnavailable(str(refused)) from None
        except (SignInFailed, ProviderUnreachable) as fault:
            await providers.release_refresh(self._db, linked_provider_id=stored.id, claimed=claimed)
            raise (AccessTokenUnavailable(str(fault)) if isinstance(fault, SignInFailed) else fault) from None
        sealed = encrypted(self._keys, tokens, row_id=stored.id, account_id=self._account_id)
        await providers.update_tokens(self._db, linked_provider_id=stored.id, claimed=claimed, tokens=sealed)
        return tokens.access_token

    def _decrypted(self, column: str, ciphertext: bytes, row_id: UUID) -> str:
        return self._keys.decrypt(ciphertext, _place(column, row_id, self._account_id)).decode()


def _place(column: str, row_id: UUID, account_id: UUID) -> Place:
    return Place("linked_providers", column, row_id, account_id)
