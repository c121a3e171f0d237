"""TokenService: issues tokens to services."""

from typing import Final
from uuid import UUID

from google.protobuf.duration_pb2 import Duration

from accord.errors.v1.errors_pb2 import Reason
from accord.policy.v1.policy_pb2 import CREDENTIAL_SESSION
from accord.services.v1 import services_pb2 as pb
from accord.services.v1.services_pb2_grpc import TokenServiceServicer
from accord_api.dependencies import Dependencies
from accord_auth.services import LIFETIME, ActingFor, require_client
from accord_auth.tokens import CLIENT_PREFIX, well_formed
from accord_db.queries import services
from accord_db.queries.services import Client
from accord_rpc.call import Context, call
from accord_rpc.caller import Caller, caller
from accord_rpc.errors import RpcError

# Half of the time between the publication of a key and its first signature.
_MAX_AGE: Final = Duration(seconds=86_400)


class TokenService(TokenServiceServicer):
    def __init__(self, dependencies: Dependencies) -> None:
        self._db = dependencies.database
        self._sessions = dependencies.sessions
        self._tokens = dependencies.service_tokens

    async def IssueToken(self, request: pb.IssueTokenRequest, context: Context) -> pb.IssueTokenResponse:
        service_account_id, audience = UUID(request.client_id), request.audience
        client = await self._client(service_account_id, request.client_secret)
        require_client(client, secret=request.client_secret, audience=audience)
        signer = await self._tokens.keys.signer()
        token = self._tokens.sign(signer, service_account_id=service_account_id, audience=audience)
        return pb.IssueTokenResponse(access_token=token, expires_in=_lifetime())

    async def ExchangeToken(self, request: pb.ExchangeTokenRequest, context: Context) -> pb.ExchangeTokenResponse:
        me = caller().account_id
        person = await self._person(request.subject_token)
        client = await services.get_client(self._db, service_account_id=me)
        if client is None:  # disabled since the call was authenticated
            raise RpcError(Reason.REASON_CREDENTIAL_INVALID)
        if request.audience not in client.audiences:
            raise RpcError(Reason.REASON_AUDIENCE_NOT_ALLOWED)
        token = self._tokens.sign(
            await self._tokens.keys.signer(),
            service_account_id=me,
            audience=request.audience,
            acting_for=ActingFor(
                account_id=person.account_id,
                session_id=person.session_id,
                organization_id=person.organization_id,
            ),
        )
        return pb.ExchangeTokenResponse(access_token=token, expires_in=_lifetime())

    async def GetJwks(self, request: pb.GetJwksRequest, context: Context) -> pb.GetJwksResponse:
        keys = await self._tokens.keys.public()
        return pb.GetJwksResponse(keys=[pb.JsonWebKey(**key) for key in keys], max_age=_MAX_AGE)

    async def _client(self, service_account_id: UUID, secret: str) -> Client | None:
        if not well_formed(secret, CLIENT_PREFIX):
            return None
        client = await services.get_client(self._db, service_account_id=service_account_id)
        if client is not None:
            call().note(target=client.id)
        return client

    async def _person(self, subject_token: str) -> Caller:
        """The user of a valid session that is not an impersonation and need not change its password first. Raises
        SUBJECT_TOKEN_INVALID."""
        found = await self._sessions.authenticate(subject_token)
        if found is None or found.caller.credential != CREDENTIAL_SESSION or found.caller.impersonator_id:
            raise RpcError(Reason.REASON_SUBJECT_TOKEN_INVALID)
        if found.caller.password_change_required:
            raise RpcError(Reason.REASON_SUBJECT_TOKEN_INVALID)
        call().note(account_id=found.caller.account_id, target=found.caller.session_id)
        return found.caller


def _lifetime() -> Duration:
    return Duration(seconds=int(LIFETIME.total_seconds()))
