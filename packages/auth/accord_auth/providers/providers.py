"""All providers of an installation: sign-ins with them begin and end here, and their tokens are kept here."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from accord.errors.v1.errors_pb2 import Reason
from accord_auth.encryption import Keyring
from accord_auth.providers.access_tokens import AccessTokens, encrypted
from accord_auth.providers.faults import AccessTokenUnavailable, SignInFailed, about
from accord_auth.providers.proofs import Proof
from accord_auth.providers.settings import ProviderSettings
from accord_auth.providers.sign_in_secrets import is_state, secrets_of
from accord_auth.tokens import PROVIDER_SIGN_IN_PREFIX, new_token, token_hash, well_formed
from accord_db.engine.database import Database
from accord_db.engine.ids import uuid7
from accord_db.queries import providers as queries
from accord_db.queries.providers import EncryptedTokens
from accord_rpc.errors import FieldViolation, RpcError, invalid

if TYPE_CHECKING:
    from accord_auth.providers.provider import Provider

SIGN_IN_LIFETIME: Final = timedelta(minutes=10)


class Begun(NamedTuple):
    """`token` completes it, and is for whoever has begun alone."""

    authorization_url: str
    token: str


class Callback(NamedTuple):
    """What has come back to the redirect URI."""

    state: str
    code: str
    issuer: str | None


class Providers:
    """One per process. What they are made of is loaded only if there are any: it takes 10 MB."""

    def __init__(
        self,
        providers: Sequence[ProviderSettings],
        *,
        redirect_uris: frozenset[str],
        database: Database,
        keys: Keyring,
        insecure_loopback: bool = False,
    ) -> None:
        self.providers = {provider.name: provider for provider in providers}
        self._redirect_uris = redirect_uris
        self._db = database
        self._keys = keys
        self._ready = _made(providers, insecure_loopback=insecure_loopback) if providers else {}
        self._refreshes: set[asyncio.Task[str]] = set()

    async def begin(self, name: str, *, redirect_uri: str, account_id: UUID | None = None) -> Begun:
        """With an account it is to be linked to it, and completed by it alone. Raises PROVIDER_NOT_FOUND,
        INVALID_MESSAGE, and SignInFailed or ProviderUnreachable if the provider cannot be used."""
        if (provider := self._ready.get(name)) is None:
            raise RpcError(Reason.REASON_PROVIDER_NOT_FOUND)
        if redirect_uri not in self._redirect_uris:  # exactly: RFC 9700, 2.1
            raise invalid(FieldViolation("redirect_uri", "It is none of those that this installation allows."))
        token = new_token(PROVIDER_SIGN_IN_PREFIX)
        with about(name):
            url = await provider.authorization_url(secrets_of(token), redirect_uri)
        await queries.insert_provider_sign_in(
            self._db,
            sign_in_id=uuid7(),
            token_hash=token_hash(token),
            provider=name,
            redirect_uri=redirect_uri,
            lifetime=SIGN_IN_LIFETIME,
            account_id=account_id,
        )
        return Begun(url, token)

    async def complete(self, token: str, callback: Callback, *, account_id: UUID | None = None) -> Proof:
        """Who it was. Ask outside of a transaction: a sign-in is used up even if nothing comes of it.

        Raises SignInFailed, ProviderUnreachable.
        """
        secrets = secrets_of(token)
        if not well_formed(token, PROVIDER_SIGN_IN_PREFIX) or not is_state(callback.state, secrets):
            raise SignInFailed("the state does not belong to the token")
        hashed = token_hash(token)
        begun = await queries.get_provider_sign_in(self._db, token_hash=hashed, account_id=account_id)
        if begun is None or (provider := self._ready.get(begun.provider)) is None:
            raise SignInFailed("nobody has begun it, or not this account, or it is used or has expired")
        with about(begun.provider):
            await provider.prepare()
            await provider.check_sender(callback.issuer)
            if not await queries.use_provider_sign_in(self._db, token_hash=hashed, account_id=account_id):
                raise SignInFailed("somebody else was faster to complete it")
            return await provider.redeem(callback.code, secrets, begun.redirect_uri)

    def encrypted(self, proof: Proof, *, row_id: UUID, account_id: UUID) -> EncryptedTokens:
        """Its tokens, to be stored in that row of linked_providers and no other."""
        return encrypted(self._keys, proof.tokens, row_id=row_id, account_id=account_id)

    async def access_token(self, account_id: UUID, provider: str) -> str:
        """One that is good now, for what the account may do at the provider. Ask outside of a transaction.

        Raises AccessTokenUnavailable, ProviderUnreachable, Undecipherable.
        """
        if (made := self._ready.get(provider)) is None:
            raise AccessTokenUnavailable("no provider of that name is set up here")
        # A task of its own goes on when whoever asks does not: else a refresh token that the provider has replaced would
        # be lost.
        refresh = asyncio.create_task(AccessTokens(self._db, self._keys, made, account_id).get())
        self._refreshes.add(refresh)
        refresh.add_done_callback(self._refreshes.discard)
        return await asyncio.shield(refresh)


def _made(providers: Sequence[ProviderSettings], *, insecure_loopback: bool) -> dict[str, "Provider"]:
    from accord_auth.providers.http import Http
    from accord_auth.providers.provider import Provider

    http = Http()
    return {each.name: Provider(each, http, insecure_loopback=insecure_loopback) for each in providers}
