"""ProviderService: signs people in with OpenID Connect providers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from uuid import UUID

import structlog
from grpc.aio import ServicerContext

from accord.accounts.v1.accounts_pb2 import Session
from accord.errors.v1.errors_pb2 import Reason
from accord.providers.v1.providers_pb2 import (
    BeginLinkProviderRequest,
    BeginLinkProviderResponse,
    BeginProviderSignInRequest,
    BeginProviderSignInResponse,
    CompleteProviderSignInRequest,
    CompleteProviderSignInResponse,
    LinkedProvider,
    LinkProviderRequest,
    LinkProviderResponse,
    ListLinkedProvidersRequest,
    ListLinkedProvidersResponse,
    ListProvidersRequest,
    ListProvidersResponse,
    Provider,
    UnlinkProviderRequest,
    UnlinkProviderResponse,
)
from accord.providers.v1.providers_pb2_grpc import ProviderServiceServicer
from accord_api.linked_identities import LinkedIdentities
from accord_api.outbox import Outbox
from accord_api.sign_ins import SignIns
from accord_auth.providers import Callback, Providers, ProviderUnreachable, SignInFailed
from accord_db.engine.database import Database
from accord_db.queries import providers as queries
from accord_rpc.call import call
from accord_rpc.caller import caller
from accord_rpc.errors import RpcError
from accord_rpc.messages import MessageMapper

_to_linked_provider: Final = MessageMapper(LinkedProvider)
_to_session: Final = MessageMapper(Session)


class ProviderService(ProviderServiceServicer):
    def __init__(
        self,
        database: Database,
        providers: Providers,
        sign_ins: SignIns,
        outbox: Outbox,
        *,
        link_by_email: bool,
    ) -> None:
        self._db = database
        self._providers = providers
        self._sign_ins = sign_ins
        self._identities = LinkedIdentities(providers, outbox, link_by_email=link_by_email)

    async def ListProviders(
        self,
        request: ListProvidersRequest,
        context: ServicerContext[ListProvidersRequest, ListProvidersResponse],
    ) -> ListProvidersResponse:
        found = self._providers.providers.values()
        return ListProvidersResponse(
            providers=[Provider(name=each.name, display_name=each.display_name) for each in found]
        )

    async def BeginProviderSignIn(
        self,
        request: BeginProviderSignInRequest,
        context: ServicerContext[BeginProviderSignInRequest, BeginProviderSignInResponse],
    ) -> BeginProviderSignInResponse:
        with _refusals(Reason.REASON_UNAVAILABLE):
            url, token = await self._providers.begin(request.provider, redirect_uri=request.redirect_uri)
        return BeginProviderSignInResponse(authorization_url=url, provider_sign_in_token=token)

    async def CompleteProviderSignIn(
        self,
        request: CompleteProviderSignInRequest,
        context: ServicerContext[CompleteProviderSignInRequest, CompleteProviderSignInResponse],
    ) -> CompleteProviderSignInResponse:
        with _refusals(Reason.REASON_PROVIDER_SIGN_IN_FAILED):
            proof = await self._providers.complete(request.provider_sign_in_token, _callback(request))
        async with self._db.transaction() as tx:
            account, is_new = await self._identities.enter(tx, proof)
            call().note(account_id=account.id, target=account.id)
            session_token, session, second_step_token = await self._sign_ins.open(tx, account)
        return CompleteProviderSignInResponse(
            session_token=session_token,
            session=_to_session(session) if session is not None else None,
            second_step_token=second_step_token,
            account_created=is_new,
        )

    async def BeginLinkProvider(
        self,
        request: BeginLinkProviderRequest,
        context: ServicerContext[BeginLinkProviderRequest, BeginLinkProviderResponse],
    ) -> BeginLinkProviderResponse:
        me = caller().account_id
        with _refusals(Reason.REASON_UNAVAILABLE):
            url, token = await self._providers.begin(request.provider, redirect_uri=request.redirect_uri, account_id=me)
        return BeginLinkProviderResponse(authorization_url=url, provider_sign_in_token=token)

    async def LinkProvider(
        self,
        request: LinkProviderRequest,
        context: ServicerContext[LinkProviderRequest, LinkProviderResponse],
    ) -> LinkProviderResponse:
        me = caller().account_id
        with _refusals(Reason.REASON_PROVIDER_SIGN_IN_FAILED):
            proof = await self._providers.complete(request.provider_sign_in_token, _callback(request), account_id=me)
        async with self._db.transaction() as tx:
            linked = await self._identities.link(tx, proof, account_id=me)
        call().note(account_id=me, target=linked.id)
        return LinkProviderResponse(linked_provider=_to_linked_provider(linked))

    async def ListLinkedProviders(
        self,
        request: ListLinkedProvidersRequest,
        context: ServicerContext[ListLinkedProvidersRequest, ListLinkedProvidersResponse],
    ) -> ListLinkedProvidersResponse:
        rows = await queries.list_linked_providers(self._db, account_id=caller().account_id)
        return ListLinkedProvidersResponse(linked_providers=map(_to_linked_provider, rows))

    async def UnlinkProvider(
        self,
        request: UnlinkProviderRequest,
        context: ServicerContext[UnlinkProviderRequest, UnlinkProviderResponse],
    ) -> UnlinkProviderResponse:
        me, linked_provider_id = caller().account_id, UUID(request.linked_provider_id)
        call().note(account_id=me, target=linked_provider_id)
        async with self._db.transaction() as tx:
            await self._identities.unlink(tx, linked_provider_id, account_id=me)
        return UnlinkProviderResponse()


def _callback(request: CompleteProviderSignInRequest | LinkProviderRequest) -> Callback:
    return Callback(request.state, request.code, request.issuer or None)


@contextmanager
def _refusals(failed: Reason.ValueType) -> Iterator[None]:
    """What the caller is told of a provider's faults: no more than that there was one. The rest is for the log.

    `failed` is the reason if it has said what does not hold; if it has said nothing, it is UNAVAILABLE.
    """
    try:
        yield
    except (SignInFailed, ProviderUnreachable) as fault:
        log = structlog.get_logger("accord.providers").bind(reason=str(fault), request_id=call().request_id)
        if fault.provider is None:  # it is the caller who came with what nobody has begun
            log.info("provider_sign_in_unknown")
        else:
            log.warning("provider_failed", provider=fault.provider)
        if isinstance(fault, SignInFailed) and failed != Reason.REASON_UNAVAILABLE:
            raise RpcError(failed) from None
        raise RpcError(Reason.REASON_UNAVAILABLE, retry_after=ProviderUnreachable.retry_after) from None
