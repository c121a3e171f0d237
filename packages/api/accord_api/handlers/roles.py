"""RoleService: the active organization's own roles, and what the caller may do there."""

from typing import Final, cast
from uuid import UUID

from grpc.aio import ServicerContext

from accord.errors.v1.errors_pb2 import Reason
from accord.policy.v1.policy_pb2 import PERMISSION_ROLES_WRITE, Permission
from accord.roles.v1 import roles_pb2
from accord.roles.v1.roles_pb2 import (
    CreateRoleRequest,
    CreateRoleResponse,
    DeleteRoleRequest,
    DeleteRoleResponse,
    GetMyPermissionsRequest,
    GetMyPermissionsResponse,
    GetRoleRequest,
    GetRoleResponse,
    ListRolesRequest,
    ListRolesResponse,
    UpdateRoleRequest,
    UpdateRoleResponse,
)
from accord.roles.v1.roles_pb2_grpc import RoleServiceServicer
from accord_api.membership_changes import changing, require_held
from accord_auth.sessions import Sessions
from accord_db.engine.database import Database, Executor
from accord_db.engine.errors import AlreadyExists
from accord_db.engine.ids import uuid7
from accord_db.engine.keyset import Cursor
from accord_db.queries import roles
from accord_db.queries.roles import RoleChanges
from accord_db.schema import Role
from accord_rpc.call import call
from accord_rpc.caller import caller
from accord_rpc.errors import RpcError
from accord_rpc.masks import changes
from accord_rpc.messages import MessageMapper
from accord_rpc.pagination import DEFAULT_PAGE_SIZE, Paginator, fill_page
from accord_rpc.permissions import held, names

# Of one organization.
_AT_MOST: Final = 100

_fill: Final = MessageMapper(roles_pb2.Role).fill


class RoleService(RoleServiceServicer):
    def __init__(self, database: Database, sessions: Sessions, pages: Paginator) -> None:
        self._db = database
        self._sessions = sessions
        self._pages = pages

    async def CreateRole(
        self,
        request: CreateRoleRequest,
        context: ServicerContext[CreateRoleRequest, CreateRoleResponse],
    ) -> CreateRoleResponse:
        organization_id, role_id = caller().active_organization_id, uuid7()
        call().note(target=role_id)
        try:
            async with changing(self._db, self._sessions, organization_id, permission=PERMISSION_ROLES_WRITE) as tx:
                await require_held(tx, organization_id, request.permissions)
                if await roles.count_roles(tx, organization_id=organization_id) >= _AT_MOST:
                    raise RpcError(Reason.REASON_TOO_MANY_ROLES)
                role = await roles.insert_role(
                    tx,
                    role_id=role_id,
                    organization_id=organization_id,
                    name=request.name,
                    permissions=names(request.permissions),
                )
        except AlreadyExists:
            raise RpcError(Reason.REASON_ROLE_NAME_TAKEN) from None
        return CreateRoleResponse(role=_told(role))

    async def GetRole(
        self,
        request: GetRoleRequest,
        context: ServicerContext[GetRoleRequest, GetRoleResponse],
    ) -> GetRoleResponse:
        return GetRoleResponse(role=_told(await _get(self._db, request.role_id)))

    async def ListRoles(
        self,
        request: ListRolesRequest,
        context: ServicerContext[ListRolesRequest, ListRolesResponse],
    ) -> ListRolesResponse:
        page_size = request.page_size or DEFAULT_PAGE_SIZE
        found = await roles.list_roles(
            self._db,
            organization_id=caller().active_organization_id,
            limit=page_size + 1,  # one more than asked tells whether there is a next page
            after=self._pages.place(request, request.page_token, times=True),
        )
        response = ListRolesResponse()
        last = fill_page(response.roles, found, page_size, _tell)
        if last is not None:
            response.next_page_token = self._pages.token(request, Cursor(last.created_at, last.id))
        return response

    async def UpdateRole(
        self,
        request: UpdateRoleRequest,
        context: ServicerContext[UpdateRoleRequest, UpdateRoleResponse],
    ) -> UpdateRoleResponse:
        organization_id, changed = caller().active_organization_id, _changes(request)
        call().note(target=UUID(request.role.id))
        try:
            async with changing(self._db, self._sessions, organization_id, permission=PERMISSION_ROLES_WRITE) as tx:
                before = await _get(tx, request.role.id)
                after = changed.get("permissions", [])
                await require_held(tx, organization_id, held(None, [*before.permissions, *after]))
                role = await roles.update_role(
                    tx,
                    role_id=before.id,
                    organization_id=organization_id,
                    changes=changed,
                    etag=_etag(request.role.etag),
                )
        except AlreadyExists:
            raise RpcError(Reason.REASON_ROLE_NAME_TAKEN) from None
        if role is None:
            raise _changed_since(request.role.id)
        return UpdateRoleResponse(role=_told(role))

    async def DeleteRole(
        self,
        request: DeleteRoleRequest,
        context: ServicerContext[DeleteRoleRequest, DeleteRoleResponse],
    ) -> DeleteRoleResponse:
        organization_id = caller().active_organization_id
        call().note(target=UUID(request.role_id))
        async with changing(self._db, self._sessions, organization_id, permission=PERMISSION_ROLES_WRITE) as tx:
            role = await _get(tx, request.role_id)
            await require_held(tx, organization_id, held(None, role.permissions))
            if not await roles.delete_role(
                tx, role_id=role.id, organization_id=organization_id, etag=_etag(request.etag)
            ):
                raise _changed_since(request.role_id)
        return DeleteRoleResponse()

    async def GetMyPermissions(
        self,
        request: GetMyPermissionsRequest,
        context: ServicerContext[GetMyPermissionsRequest, GetMyPermissionsResponse],
    ) -> GetMyPermissionsResponse:
        me = caller()
        return GetMyPermissionsResponse(
            organization_id=str(me.organization_id or ""), permissions=sorted(me.permissions)
        )


async def _get(db: Executor, role_id: str) -> Role:
    """Also not found if it is one of another organization: whether there is one is not theirs to know."""
    role = await roles.get_role(db, role_id=UUID(role_id), organization_id=caller().active_organization_id)
    if role is None:
        raise RpcError(Reason.REASON_ROLE_NOT_FOUND, role_id=role_id)
    return role


def _changed_since(role_id: str) -> RpcError:
    return RpcError(Reason.REASON_ETAG_MISMATCH, role_id=role_id)


def _changes(request: UpdateRoleRequest) -> RoleChanges:
    changed = changes(request.role, request.update_mask)
    if "permissions" in changed:
        changed["permissions"] = names(cast(list[Permission.ValueType], changed["permissions"]))
    return cast(RoleChanges, changed)


def _etag(etag: str) -> UUID | None:
    return UUID(etag) if etag else None


def _told(role: Role) -> roles_pb2.Role:
    message = roles_pb2.Role()
    _tell(message, role)
    return message


def _tell(message: roles_pb2.Role, role: Role) -> None:
    _fill(message, role)
    message.permissions.extend(sorted(held(None, role.permissions)))
