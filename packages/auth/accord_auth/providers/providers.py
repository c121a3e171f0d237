"""The providers of an installation. Handlers begin and complete sign-ins here, and get access tokens."""

import asyncio
import hashlib
import hmac
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, Self
from uuid import UUID

from accord.errors.v1.errors_pb2 import Reason
from accord_auth.encryption import Keyring
from accord_auth.providers.access_tokens import AccessTokens, encrypted
from accord_auth.providers.encodings import base64url
from accord_auth.providers.errors import AccessTokenUnavailable, SignInFailed, errors_of
from accord_auth.providers.provider_identity import Proof, ProviderSettings
from accord_auth.tokens import PROVIDER_SIGN_IN_PREFIX, new_token, token_hash, well_formed
from accord_db.engine.clock import DatabaseClock
from accord_db.engine.database import Database
from accord_db.engine.ids import uuid7
from accord_db.queries import providers as queries
from accord_db.queries.providers import EncryptedTokens
from accord_rpc.errors import FieldViolation, RpcError, invalid

if TYPE_CHECKING:
    from accord_auth.providers.provider import Provider

SIGN_IN_LIFETIME: Final = timedelta(minutes=10)


class SignInSecrets(NamedTuple):
    """Derived from the token of a sign-in, so they are not stored. None of them reveals another one, or the token."""

    state: str
    nonce: str
    code_verifier: str

    @classmethod
    def of(cls, token: str) -> Self:
        return cls(*(_derive(token, purpose) for purpose in cls._fields))

    def has_state(self, state: str) -> bool:
        return hmac.compare_digest(state.encode(), self.state.encode())

    def __repr__(self) -> str:
        return "SignInSecrets(…)"


class Begun(NamedTuple):
    """`token` completes the sign-in. Only the client that began it may have the token."""

    authorization_url: str
    token: str


class Callback(NamedTuple):
    """The parameters of the redirect URI."""

    state: str
    code: str
    issuer: str | None


class Providers:
    """One per process. An installation without providers does not load the HTTP client, which takes 10 MB."""

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
        self._ready = _build(providers, database.clock, insecure_loopback=insecure_loopback) if providers else {}
        self._refreshes: set[asyncio.Task[str]] = set()

    async def begin(self, name: str, *, redirect_uri: str, account_id: UUID | None = None) -> Begun:
        """With `account_id`, the identity will be linked to that account, which alone can complete the sign-in. Raises
        PROVIDER_NOT_FOUND, INVALID_MESSAGE, SignInFailed, ProviderUnreachable."""
        if (provider := self._ready.get(name)) is None:
            raise RpcError(Reason.REASON_PROVIDER_NOT_FOUND)
        if redirect_uri not in self._redirect_uris:  # compared exactly (RFC 9700, section 2.1)
            raise invalid(FieldViolation("redirect_uri", "It is not a redirect URI of this installation."))
        token = new_token(PROVIDER_SIGN_IN_PREFIX)
        with errors_of(name):
            url = await provider.authorization_url(**SignInSecrets.of(token)._asdict(), redirect_uri=redirect_uri)
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
        """Call outside a transaction: a sign-in that fails is used up as well. Raises SignInFailed, ProviderUnreachable."""
        secrets = SignInSecrets.of(token)
        if not well_formed(token, PROVIDER_SIGN_IN_PREFIX) or not secrets.has_state(callback.state):
            raise SignInFailed("the state does not belong to the token")
        hashed = token_hash(token)
        begun = await queries.get_provider_sign_in(self._db, token_hash=hashed, account_id=account_id)
        if begun is None or (provider := self._ready.get(begun.provider)) is None:
            raise SignInFailed("the sign-in does not exist, has expired or was completed, or is of another account")
        with errors_of(begun.provider):
            await provider.prepare()
            await provider.check_response_issuer(callback.issuer)
            if not await queries.use_provider_sign_in(self._db, token_hash=hashed, account_id=account_id):
                raise SignInFailed("a concurrent request has completed the sign-in")
            return await provider.redeem(
                callback.code,
                nonce=secrets.nonce,
                code_verifier=secrets.code_verifier,
                redirect_uri=begun.redirect_uri,
            )

    def encrypted(self, proof: Proof, *, row_id: UUID, account_id: UUID) -> EncryptedTokens:
        """The tokens, encrypted for that row of linked_providers."""
        return encrypted(self._keys, proof.tokens, row_id=row_id, account_id=account_id)

    async def access_token(self, account_id: UUID, provider: str) -> str:
        """A valid access token, refreshed if necessary. Call outside a transaction.

        Raises AccessTokenUnavailable, ProviderUnreachable, Undecipherable.
        """
        if (ready := self._ready.get(provider)) is None:
            raise AccessTokenUnavailable("no provider of that name is configured")
        # A separate task completes after the caller is cancelled: otherwise a rotated refresh token would be lost.
        refresh = asyncio.create_task(AccessTokens(self._db, self._keys, ready, account_id).get())
        self._refreshes.add(refresh)
        refresh.add_done_callback(self._refreshes.discard)
        return await asyncio.shield(refresh)


def _build(
    providers: Sequence[ProviderSettings], clock: DatabaseClock, *, insecure_loopback: bool
) -> dict[str, "Provider"]:
    from accord_auth.providers.http import Http
    from accord_auth.providers.provider import Provider

    http = Http()
    return {each.name: Provider(each, http, clock, insecure_loopback=insecure_loopback) for each in providers}


def _derive(token: str, purpose: str) -> str:
    """256 bits as 43 characters, the minimum length of a PKCE verifier (RFC 7636, section 4.1)."""
    digest = hmac.digest(token.encode(), b"accord provider sign-in: " + purpose.encode(), hashlib.sha256)
    return base64url(digest)
