"""ProviderService: sign-in with OpenID Connect providers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Final
from uuid import UUID

import structlog

from accord.errors.v1.errors_pb2 import Reason
from accord.providers.v1 import providers_pb2 as pb
from accord.providers.v1.providers_pb2_grpc import ProviderServiceServicer
from accord_api.dependencies import Dependencies
from accord_api.linked_identities import LinkedIdentities
from accord_api.session_messages import to_session
from accord_auth.providers import Callback, ProviderUnreachable, SignInFailed
from accord_db.queries import providers as queries
from accord_db.schema import LinkedProvider
from accord_rpc.call import Context, call
from accord_rpc.caller import caller
from accord_rpc.errors import RpcError
from accord_rpc.messages import MessageMapper

_to_linked_provider: Final = MessageMapper(pb.LinkedProvider)


class ProviderService(ProviderServiceServicer):
    resources: ClassVar = {pb.LinkedProvider: LinkedProvider}

    def __init__(self, dependencies: Dependencies) -> None:
        self._db = dependencies.database
        self._providers = dependencies.providers
        self._sign_ins = dependencies.sign_ins
        self._identities = LinkedIdentities(
            dependencies.providers, dependencies.outbox, link_by_email=dependencies.rules.link_by_email
        )

    async def ListProviders(self, request: pb.ListProvidersRequest, context: Context) -> pb.ListProvidersResponse:
        found = self._providers.providers.values()
        return pb.ListProvidersResponse(
            providers=[pb.Provider(name=each.name, display_name=each.display_name) for each in found]
        )

    async def BeginProviderSignIn(
        self, request: pb.BeginProviderSignInRequest, context: Context
    ) -> pb.BeginProviderSignInResponse:
        with _refusals(Reason.REASON_UNAVAILABLE):
            url, token = await self._providers.begin(request.provider, redirect_uri=request.redirect_uri)
        return pb.BeginProviderSignInResponse(authorization_url=url, provider_sign_in_token=token)

    async def CompleteProviderSignIn(
        self, request: pb.CompleteProviderSignInRequest, context: Context
    ) -> pb.CompleteProviderSignInResponse:
        with _refusals(Reason.REASON_PROVIDER_SIGN_IN_FAILED):
            proof = await self._providers.complete(request.provider_sign_in_token, _callback(request))
        async with self._db.transaction() as tx:
            account, is_new = await self._identities.enter(tx, proof)
            call().note(account_id=account.id, target=account.id)
            session_token, session, second_step_token = await self._sign_ins.open(
                tx, account, provider=proof.settings.name
            )
        return pb.CompleteProviderSignInResponse(
            session_token=session_token,
            session=to_session(session) if session is not None else None,
            second_step_token=second_step_token,
            account_created=is_new,
        )

    async def BeginLinkProvider(
        self, request: pb.BeginLinkProviderRequest, context: Context
    ) -> pb.BeginLinkProviderResponse:
        me = caller().account_id
        with _refusals(Reason.REASON_UNAVAILABLE):
            url, token = await self._providers.begin(request.provider, redirect_uri=request.redirect_uri, account_id=me)
        return pb.BeginLinkProviderResponse(authorization_url=url, provider_sign_in_token=token)

    async def LinkProvider(self, request: pb.LinkProviderRequest, context: Context) -> pb.LinkProviderResponse:
        me = caller().account_id
        with _refusals(Reason.REASON_PROVIDER_SIGN_IN_FAILED):
            proof = await self._providers.complete(request.provider_sign_in_token, _callback(request), account_id=me)
        async with self._db.transaction() as tx:
            linked = await self._identities.link(tx, proof, account_id=me)
        call().note(account_id=me, target=linked.id)
        return pb.LinkProviderResponse(linked_provider=_to_linked_provider(linked))

    async def ListLinkedProviders(
        self, request: pb.ListLinkedProvidersRequest, context: Context
    ) -> pb.ListLinkedProvidersResponse:
        rows = await queries.list_linked_providers(self._db, account_id=caller().account_id)
        return pb.ListLinkedProvidersResponse(linked_providers=map(_to_linked_provider, rows))

    async def UnlinkProvider(self, request: pb.UnlinkProviderRequest, context: Context) -> pb.UnlinkProviderResponse:
        me, linked_provider_id = caller().account_id, UUID(request.linked_provider_id)
        call().note(account_id=me, target=linked_provider_id)
        async with self._db.transaction() as tx:
            await self._identities.unlink(tx, linked_provider_id, account_id=me)
        return pb.UnlinkProviderResponse()


def _callback(request: pb.CompleteProviderSignInRequest | pb.LinkProviderRequest) -> Callback:
    return Callback(request.state, request.code, request.issuer or None)


@contextmanager
def _refusals(failed: Reason.ValueType) -> Iterator[None]:
    """Maps errors of a provider to reasons. The caller learns only that the provider failed; the log has the details.

    `failed` is the reason if the provider responded wrongly. If it did not respond, the reason is UNAVAILABLE.
    """
    try:
        yield
    except (SignInFailed, ProviderUnreachable) as fault:
        log = structlog.get_logger("accord.providers").bind(reason=str(fault), request_id=call().request_id)
        if fault.provider is None:  # the caller sent a token that no sign-in began with
            log.info("provider_sign_in_unknown")
        else:
            log.warning("provider_failed", provider=fault.provider)
        if isinstance(fault, SignInFailed) and failed != Reason.REASON_UNAVAILABLE:
            raise RpcError(failed) from None
        raise RpcError(Reason.REASON_UNAVAILABLE, retry_after=ProviderUnreachable.retry_after) from None
