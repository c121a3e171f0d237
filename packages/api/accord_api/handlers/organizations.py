"""OrganizationService: what people share their work in, and which of it a session is about."""

from datetime import timedelta
from typing import Final, cast
from uuid import UUID

from grpc.aio import ServicerContext

from accord.errors.v1.errors_pb2 import Reason
from accord.organizations.v1.organizations_pb2 import (
    CreateOrganizationRequest,
    CreateOrganizationResponse,
    DeleteOrganizationRequest,
    DeleteOrganizationResponse,
    GetOrganizationRequest,
    GetOrganizationResponse,
    ListOrganizationsRequest,
    ListOrganizationsResponse,
    Organization,
    SetActiveOrganizationRequest,
    SetActiveOrganizationResponse,
    UndeleteOrganizationRequest,
    UndeleteOrganizationResponse,
    UpdateOrganizationRequest,
    UpdateOrganizationResponse,
)
from accord.organizations.v1.organizations_pb2_grpc import OrganizationServiceServicer
from accord.policy.v1.policy_pb2 import (
    CREDENTIAL_API_KEY,
    PERMISSION_ORGANIZATION_DELETE,
    PERMISSION_ORGANIZATION_WRITE,
)
from accord_api.membership_changes import changing, organization_not_found, require_member
from accord_api.own_account import get_own_account_locked
from accord_auth.sessions import Sessions
from accord_db import schema
from accord_db.engine.database import Database, Executor, Transaction
from accord_db.engine.errors import AlreadyExists
from accord_db.engine.ids import uuid7
from accord_db.engine.keyset import Cursor
from accord_db.engine.tenant import acting_for
from accord_db.queries import members, organizations, sessions
from accord_db.queries.organizations import OrganizationChanges, OrganizationWithRole
from accord_rpc.call import call
from accord_rpc.caller import Caller, caller
from accord_rpc.errors import RpcError
from accord_rpc.masks import changes
from accord_rpc.messages import MessageMapper
from accord_rpc.pagination import DEFAULT_PAGE_SIZE, Paginator, fill_page
from accord_rpc.permissions import ROLES

_fill: Final = MessageMapper(Organization).fill


class OrganizationService(OrganizationServiceServicer):
    def __init__(self, database: Database, sessions: Sessions, pages: Paginator, *, deleted_kept: timedelta) -> None:
        self._db = database
        self._sessions = sessions
        self._pages = pages
        self._deleted_kept = deleted_kept

    async def CreateOrganization(
        self,
        request: CreateOrganizationRequest,
        context: ServicerContext[CreateOrganizationRequest, CreateOrganizationResponse],
    ) -> CreateOrganizationResponse:
        async with self._db.transaction() as tx:
            # Locked, or it could be deleted meanwhile, and the organization would have no owner.
            me = await get_own_account_locked(tx)
            organization = await organizations.insert_organization(
                tx, organization_id=uuid7(), name=request.name, slug=request.slug
            )
            if organization is None:
                raise RpcError(Reason.REASON_SLUG_TAKEN)
            with acting_for(organization.id):
                await members.insert_member(tx, organization_id=organization.id, account_id=me.id, role="owner")
        call().note(target=organization.id)
        return CreateOrganizationResponse(organization=_message(organization, "owner"))

    async def GetOrganization(
        self,
        request: GetOrganizationRequest,
        context: ServicerContext[GetOrganizationRequest, GetOrganizationResponse],
    ) -> GetOrganizationResponse:
        me = caller()
        organization_id = UUID(request.organization_id) if request.organization_id else me.organization_id
        if organization_id is None:  # none is named, and none is active
            raise RpcError(Reason.REASON_ORGANIZATION_NOT_FOUND)
        if (only := _only(me)) and only != organization_id:
            raise organization_not_found(organization_id)
        return GetOrganizationResponse(organization=_message(*await _mine(self._db, organization_id)))

    async def ListOrganizations(
        self,
        request: ListOrganizationsRequest,
        context: ServicerContext[ListOrganizationsRequest, ListOrganizationsResponse],
    ) -> ListOrganizationsResponse:
        me, page_size = caller(), request.page_size or DEFAULT_PAGE_SIZE
        found = await organizations.list_organizations(
            self._db,
            account_id=me.account_id,
            limit=page_size + 1,  # one more than asked tells whether there is a next page
            only=_only(me),
            after=self._pages.place(request, request.page_token, times=True),
            show_deleted=request.show_deleted,
        )
        response = ListOrganizationsResponse()
        last = fill_page(response.organizations, found, page_size, _tell)
        if last is not None:
            place = Cursor(last.organization.created_at, last.organization.id)
            response.next_page_token = self._pages.token(request, place)
        return response

    async def UpdateOrganization(
        self,
        request: UpdateOrganizationRequest,
        context: ServicerContext[UpdateOrganizationRequest, UpdateOrganizationResponse],
    ) -> UpdateOrganizationResponse:
        me, organization_id = caller(), UUID(request.organization.id)
        call().note(target=organization_id)
        if organization_id != me.active_organization_id:
            raise organization_not_found(organization_id)
        try:
            async with changing(
                self._db, self._sessions, organization_id, permission=PERMISSION_ORGANIZATION_WRITE
            ) as tx:
                organization = await organizations.update_organization(
                    tx,
                    organization_id=organization_id,
                    changes=cast(OrganizationChanges, changes(request.organization, request.update_mask)),
                    etag=_etag(request.organization.etag),
                )
                mine = await _mine(tx, organization_id)
        except AlreadyExists:
            raise RpcError(Reason.REASON_SLUG_TAKEN) from None
        if organization is None:
            raise _changed_since(organization_id)
        return UpdateOrganizationResponse(organization=_message(organization, mine.role))

    async def DeleteOrganization(
        self,
        request: DeleteOrganizationRequest,
        context: ServicerContext[DeleteOrganizationRequest, DeleteOrganizationResponse],
    ) -> DeleteOrganizationResponse:
        organization_id = caller().active_organization_id
        call().note(target=organization_id)
        async with changing(self._db, self._sessions, organization_id, permission=PERMISSION_ORGANIZATION_DELETE) as tx:
            mine = await _mine(tx, organization_id)
            organization = await organizations.delete_organization(
                tx, organization_id=organization_id, etag=_etag(request.etag)
            )
            if organization is None:
                raise _changed_since(organization_id)
        return DeleteOrganizationResponse(organization=_message(organization, mine.role))

    async def UndeleteOrganization(
        self,
        request: UndeleteOrganizationRequest,
        context: ServicerContext[UndeleteOrganizationRequest, UndeleteOrganizationResponse],
    ) -> UndeleteOrganizationResponse:
        organization_id = UUID(request.organization_id)
        call().note(target=organization_id)
        await require_member(self._db, organization_id)
        try:
            async with changing(self._db, self._sessions, organization_id, show_deleted=True) as tx:
                await _require_owner(tx, organization_id)
                await organizations.undelete_organization(
                    tx, organization_id=organization_id, deleted_kept=self._deleted_kept
                )
                mine = await _mine(tx, organization_id)
        except AlreadyExists:
            raise RpcError(Reason.REASON_SLUG_TAKEN) from None
        return UndeleteOrganizationResponse(organization=_message(*mine))

    async def SetActiveOrganization(
        self,
        request: SetActiveOrganizationRequest,
        context: ServicerContext[SetActiveOrganizationRequest, SetActiveOrganizationResponse],
    ) -> SetActiveOrganizationResponse:
        response = SetActiveOrganizationResponse()
        async with self._db.transaction() as tx:
            if request.organization_id:
                mine = await _mine(tx, UUID(request.organization_id))
                response.organization.CopyFrom(_message(*mine))
            await self._set_active(tx, UUID(request.organization_id) if request.organization_id else None)
        return response

    async def _set_active(self, tx: Transaction, organization_id: UUID | None) -> None:
        me = caller()
        try:
            is_set = await sessions.update_session_organization(
                tx, session_id=me.session_id, account_id=me.account_id, organization_id=organization_id
            )
        finally:
            self._sessions.forget(me.session_id)
        if not is_set:  # revoked since the call was let in
            raise RpcError(Reason.REASON_CREDENTIAL_INVALID)


def _only(me: Caller) -> UUID | None:
    """The one organization that the caller sees, whichever its account belongs to."""
    return me.organization_id if me.credential == CREDENTIAL_API_KEY else None


async def _mine(db: Executor, organization_id: UUID) -> OrganizationWithRole:
    found = await organizations.get_organization(db, organization_id=organization_id, account_id=caller().account_id)
    if found is None:
        raise organization_not_found(organization_id)
    return found


async def _require_owner(tx: Transaction, organization_id: UUID) -> None:
    me = await members.get_member(tx, organization_id=organization_id, account_id=caller().account_id)
    if me is None or me.role != "owner":
        raise organization_not_found(organization_id)


def _changed_since(organization_id: UUID) -> RpcError:
    return RpcError(Reason.REASON_ETAG_MISMATCH, organization_id=str(organization_id))


def _etag(etag: str) -> UUID | None:
    return UUID(etag) if etag else None


def _message(organization: schema.Organization, role: str | None) -> Organization:
    message = Organization()
    _tell(message, OrganizationWithRole(organization, role))
    return message


def _tell(message: Organization, found: OrganizationWithRole) -> None:
    _fill(message, found.organization)
    if found.role is not None:
        message.role = ROLES[found.role]
