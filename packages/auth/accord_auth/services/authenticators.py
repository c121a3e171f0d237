"""Authentication of services by token or certificate. Results are cached like those of sessions: every process drops them when
the service is disabled, or when the session that it acts in ends."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from accord.policy.v1.policy_pb2 import CREDENTIAL_CLIENT_CERTIFICATE, CREDENTIAL_SERVICE_TOKEN, Credential
from accord_auth.credential_cache import CredentialCache
from accord_auth.credentials import Authenticated
from accord_auth.services.tokens import ActingFor, ServiceToken, ServiceTokens
from accord_auth.tokens import token_hash
from accord_db.engine.database import Database
from accord_db.queries.services import get_client, get_client_by_name
from accord_db.queries.sessions import get_delegated_session
from accord_rpc.caller import Caller
from accord_rpc.permissions import held


class _ServiceAuthenticator(ABC):
    def __init__(self, database: Database, cache: CredentialCache) -> None:
        self._database = database
        self._cache = cache

    async def authenticate(self, token: str) -> Authenticated | None:
        key = self._key(token)
        return self._cache.get(key) or await self._cache.store(key, self._look_up(token))

    async def recheck(self, tokens: Sequence[str]) -> dict[str, Authenticated]:
        found = {token: await self._look_up(token) for token in tokens}
        return {token: each for token, each in found.items() if each is not None}

    @abstractmethod
    def _key(self, token: str) -> bytes:
        """The key in the cache."""

    @abstractmethod
    async def _look_up(self, token: str) -> Authenticated | None: ...


class ServiceTokenAuthenticator(_ServiceAuthenticator):
    def __init__(self, database: Database, tokens: ServiceTokens, cache: CredentialCache) -> None:
        super().__init__(database, cache)
        self._tokens = tokens

    def _key(self, token: str) -> bytes:
        return token_hash(token)

    async def _look_up(self, token: str) -> Authenticated | None:
        claims = await self._tokens.verify(token)
        if claims is None or await get_client(self._database, service_account_id=claims.service_account_id) is None:
            return None
        if claims.acting_for is not None:
            return await self._acting_for(claims, claims.acting_for)
        caller = _service(claims.service_account_id, CREDENTIAL_SERVICE_TOKEN, claims.issued_at)
        return Authenticated(caller, (claims.service_account_id,), claims.expires_at, claims.expires_at)

    async def _acting_for(self, claims: ServiceToken, person: ActingFor) -> Authenticated | None:
        """Reads the current permissions of the account: the token has none."""
        session = await get_delegated_session(
            self._database,
            session_id=person.session_id,
            account_id=person.account_id,
            organization_id=person.organization_id,
        )
        if session is None:
            return None
        caller = Caller(
            account_id=person.account_id,
            credential=CREDENTIAL_SERVICE_TOKEN,
            credential_id=claims.service_account_id,
            authenticated_at=session.authenticated_at,
            organization_id=person.organization_id,
            permissions=held(session.role, session.permissions),
            service_account_id=claims.service_account_id,
        )
        ids = (claims.service_account_id, person.session_id, person.account_id, person.organization_id)
        valid_until = min(claims.expires_at, session.expires_at, session.idle_expires_at)
        return Authenticated(caller, tuple(id_ for id_ in ids if id_), valid_until, valid_until)


class CertificateAuthenticator(_ServiceAuthenticator):
    """TLS has verified that the client holds the key of a certificate with this URI. SERVICE_IDENTITIES maps the URI to a
    service account."""

    def __init__(self, database: Database, identities: Mapping[str, str], cache: CredentialCache) -> None:
        super().__init__(database, cache)
        self._identities = identities

    def _key(self, token: str) -> bytes:
        return b"certificate " + token.encode()  # differs from every hash of a token

    async def _look_up(self, token: str) -> Authenticated | None:
        name = self._identities.get(token)
        client = await get_client_by_name(self._database, name=name) if name is not None else None
        if client is None:
            return None
        return Authenticated(
            _service(client.id, CREDENTIAL_CLIENT_CERTIFICATE, self._database.clock.now()), (client.id,)
        )


def _service(service_account_id: UUID, credential: Credential.ValueType, authenticated_at: datetime) -> Caller:
    """A service that acts for itself."""
    return Caller(
        account_id=service_account_id,
        credential=credential,
        credential_id=service_account_id,
        authenticated_at=authenticated_at,
        service_account_id=service_account_id,
    )
