"""Who is behind the token or the certificate of a service. Both are remembered as sessions are, and so refused as they are:
in every process, once the service is disabled, or the session in which it acts is over."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
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
        """By which it is remembered."""

    @abstractmethod
    async def _look_up(self, token: str) -> Authenticated | None: ...


class ServiceTokenAuthenticator(_ServiceAuthenticator):
    def __init__(self, database: Database, tokens: ServiceTokens, cache: CredentialCache) -> None:
        super().__init__(database, cache)
        self._tokens = tokens

    def _key(self, token: str) -> bytes:
        return token_hash(token)

    async def _look_up(self, token: str) -> Authenticated | None:
        said = await self._tokens.verify(token)
        if said is None or await get_client(self._database, service_account_id=said.service_account_id) is None:
            return None
        if said.acting_for is not None:
            return await self._acting_for(said, said.acting_for)
        caller = _service(said.service_account_id, CREDENTIAL_SERVICE_TOKEN, said.issued_at)
        return Authenticated(caller, (said.service_account_id,), said.expires_at, said.expires_at)

    async def _acting_for(self, said: ServiceToken, person: ActingFor) -> Authenticated | None:
        """What the person may do is asked now: the token does not say."""
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
            credential_id=said.service_account_id,
            authenticated_at=session.authenticated_at,
            organization_id=person.organization_id,
            permissions=held(session.role, session.permissions),
            service_account_id=said.service_account_id,
        )
        ids = (said.service_account_id, person.session_id, person.account_id, person.organization_id)
        valid_until = min(said.expires_at, session.expires_at, session.idle_expires_at)
        return Authenticated(caller, tuple(id_ for id_ in ids if id_), valid_until, valid_until)


class CertificateAuthenticator(_ServiceAuthenticator):
    """Stands by what TLS has proved: that whoever opened the connection has the key of a certificate with this URI. Settings
    say which service account that is."""

    def __init__(self, database: Database, identities: Mapping[str, str], cache: CredentialCache) -> None:
        super().__init__(database, cache)
        self._identities = identities

    def _key(self, token: str) -> bytes:
        return b"certificate " + token.encode()  # no hash, and so that of no token

    async def _look_up(self, token: str) -> Authenticated | None:
        name = self._identities.get(token)
        client = await get_client_by_name(self._database, name=name) if name is not None else None
        if client is None:
            return None
        return Authenticated(_service(client.id, CREDENTIAL_CLIENT_CERTIFICATE, datetime.now(UTC)), (client.id,))


def _service(service_account_id: UUID, credential: Credential.ValueType, authenticated_at: datetime) -> Caller:
    """One that acts for nobody but itself."""
    return Caller(
        account_id=service_account_id,
        credential=credential,
        credential_id=service_account_id,
        authenticated_at=authenticated_at,
        service_account_id=service_account_id,
    )
