"""OrganizationService: organizations, and the one that is active in a session."""

from typing import ClassVar, Final
from uuid import UUID

from accord.errors.v1.errors_pb2 import Reason
from accord.organizations.v1 import organizations_pb2 as pb
from accord.organizations.v1.organizations_pb2_grpc import OrganizationServiceServicer
from accord.policy.v1.policy_pb2 import (
    CREDENTIAL_API_KEY,
    PERMISSION_ORGANIZATION_DELETE,
    PERMISSION_ORGANIZATION_WRITE,
)
from accord_api.dependencies import Dependencies
from accord_api.membership_changes import changing, organization_not_found, require_member
from accord_api.own_account import get_own_account_locked
from accord_db import schema
from accord_db.engine.database import Executor, Transaction
from accord_db.engine.errors import AlreadyExists
from accord_db.engine.ids import uuid7
from accord_db.engine.scope import acting_for
from accord_db.queries import members, organizations, sessions
from accord_db.queries.organizations import OrganizationChanges, OrganizationWithRole
from accord_db.schema import Organization
from accord_rpc.call import Context, call
from accord_rpc.caller import Caller, caller
from accord_rpc.errors import RpcError
from accord_rpc.masks import MaskedChanges
from accord_rpc.messages import MessageMapper
from accord_rpc.permissions import ROLES

_fill: Final = MessageMapper(pb.Organization).fill
_changes: Final = MaskedChanges(pb.UpdateOrganizationRequest, OrganizationChanges)


class OrganizationService(OrganizationServiceServicer):
    resources: ClassVar = {pb.Organization: Organization}

    def __init__(self, dependencies: Dependencies) -> None:
        self._db = dependencies.database
        self._sessions = dependencies.sessions
        self._paginator = dependencies.paginator
        self._deleted_kept = dependencies.rules.deleted_organizations_kept

    async def CreateOrganization(
        self, request: pb.CreateOrganizationRequest, context: Context
    ) -> pb.CreateOrganizationResponse:
        async with self._db.transaction() as tx:
            # Locked: if it were deleted meanwhile, the organization would have no owner.
            me = await get_own_account_locked(tx)
            organization = await organizations.insert_organization(
                tx, organization_id=uuid7(), name=request.name, slug=request.slug
            )
            if organization is None:
                raise RpcError(Reason.REASON_SLUG_TAKEN)
            with acting_for(organization.id):
                await members.insert_member(tx, organization_id=organization.id, account_id=me.id, role="owner")
        call().note(target=organization.id)
        return pb.CreateOrganizationResponse(organization=_message(organization, "owner"))

    async def GetOrganization(self, request: pb.GetOrganizationRequest, context: Context) -> pb.GetOrganizationResponse:
        me = caller()
        organization_id = UUID(request.organization_id) if request.organization_id else me.organization_id
        if organization_id is None:  # none is requested and none is active
            raise RpcError(Reason.REASON_ORGANIZATION_NOT_FOUND)
        if (only := _only(me)) and only != organization_id:
            raise organization_not_found(organization_id)
        return pb.GetOrganizationResponse(organization=_message(*await _mine(self._db, organization_id)))

    async def ListOrganizations(
        self, request: pb.ListOrganizationsRequest, context: Context
    ) -> pb.ListOrganizationsResponse:
        me = caller()
        page = self._paginator.page(request)
        rows = await organizations.list_organizations(
            self._db, account_id=me.account_id, page=page, only=_only(me), show_deleted=request.show_deleted
        )
        response = pb.ListOrganizationsResponse()
        response.next_page_token = page.fill(
            response.organizations, rows, _fill_message, key=lambda row: row.organization
        )
        return response

    async def UpdateOrganization(
        self, request: pb.UpdateOrganizationRequest, context: Context
    ) -> pb.UpdateOrganizationResponse:
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
                    changes=_changes(request),
                    etag=_etag(request.organization.etag),
                )
                mine = await _mine(tx, organization_id)
        except AlreadyExists:
            raise RpcError(Reason.REASON_SLUG_TAKEN) from None
        if organization is None:
            raise _changed_since(organization_id)
        return pb.UpdateOrganizationResponse(organization=_message(organization, mine.role))

    async def DeleteOrganization(
        self, request: pb.DeleteOrganizationRequest, context: Context
    ) -> pb.DeleteOrganizationResponse:
        organization_id = caller().active_organization_id
        call().note(target=organization_id)
        async with changing(self._db, self._sessions, organization_id, permission=PERMISSION_ORGANIZATION_DELETE) as tx:
            mine = await _mine(tx, organization_id)
            organization = await organizations.delete_organization(
                tx, organization_id=organization_id, etag=_etag(request.etag)
            )
            if organization is None:
                raise _changed_since(organization_id)
        return pb.DeleteOrganizationResponse(organization=_message(organization, mine.role))

    async def UndeleteOrganization(
        self, request: pb.UndeleteOrganizationRequest, context: Context
    ) -> pb.UndeleteOrganizationResponse:
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
        return pb.UndeleteOrganizationResponse(organization=_message(*mine))

    async def SetActiveOrganization(
        self, request: pb.SetActiveOrganizationRequest, context: Context
    ) -> pb.SetActiveOrganizationResponse:
        response = pb.SetActiveOrganizationResponse()
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
        if not is_set:  # revoked since the call was authenticated
            raise RpcError(Reason.REASON_CREDENTIAL_INVALID)


def _only(me: Caller) -> UUID | None:
    """An API key sees its own organization only."""
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


def _message(organization: schema.Organization, role: str | None) -> pb.Organization:
    message = pb.Organization()
    _fill_message(message, OrganizationWithRole(organization, role))
    return message


def _fill_message(message: pb.Organization, found: OrganizationWithRole) -> None:
    _fill(message, found.organization)
    if found.role is not None:
        message.role = ROLES[found.role]
