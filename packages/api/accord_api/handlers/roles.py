"""RoleService: custom roles of the active organization, and the caller's permissions in it."""

from collections.abc import Iterable
from typing import ClassVar, Final
from uuid import UUID

from accord.errors.v1.errors_pb2 import Reason
from accord.policy.v1.policy_pb2 import PERMISSION_ROLES_WRITE
from accord.roles.v1 import roles_pb2 as pb
from accord.roles.v1.roles_pb2_grpc import RoleServiceServicer
from accord_api.dependencies import Dependencies
from accord_api.membership_changes import changing, require_held
from accord_db.engine.database import Executor
from accord_db.engine.errors import AlreadyExists
from accord_db.engine.folding import fold_name
from accord_db.engine.ids import uuid7
from accord_db.queries import roles
from accord_db.queries.roles import RoleChanges
from accord_db.schema import Role
from accord_rpc.call import Context, call
from accord_rpc.caller import caller
from accord_rpc.errors import RpcError
from accord_rpc.masks import MaskedChanges
from accord_rpc.messages import MessageMapper, etag_of
from accord_rpc.permissions import AnyPermission, held, join_permissions, names, of_accord, of_application

# Per organization.
_MAX_ROLES: Final = 100


class _Changes(RoleChanges, total=False):
    app_permissions: list[str]


_fill: Final = MessageMapper(pb.Role).fill
_changes: Final = MaskedChanges(pb.UpdateRoleRequest, _Changes)


class RoleService(RoleServiceServicer):
    resources: ClassVar = {pb.Role: Role}

    def __init__(self, dependencies: Dependencies) -> None:
        self._db = dependencies.database
        self._sessions = dependencies.sessions
        self._paginator = dependencies.paginator

    async def CreateRole(self, request: pb.CreateRoleRequest, context: Context) -> pb.CreateRoleResponse:
        organization_id, role_id = caller().active_organization_id, uuid7()
        permissions: list[AnyPermission] = [*request.permissions, *request.app_permissions]
        call().note(target=role_id)
        try:
            async with changing(self._db, self._sessions, organization_id, permission=PERMISSION_ROLES_WRITE) as tx:
                await require_held(tx, organization_id, permissions)
                names_taken = await roles.list_role_names(tx, organization_id=organization_id)
                if len(names_taken) >= _MAX_ROLES:
                    raise RpcError(Reason.REASON_TOO_MANY_ROLES)
                _require_free(request.name, names_taken.values())
                role = await roles.insert_role(
                    tx,
                    role_id=role_id,
                    organization_id=organization_id,
                    name=request.name,
                    permissions=names(permissions),
                )
        except AlreadyExists:
            raise RpcError(Reason.REASON_ROLE_NAME_TAKEN) from None
        return pb.CreateRoleResponse(role=_to_message(role))

    async def GetRole(self, request: pb.GetRoleRequest, context: Context) -> pb.GetRoleResponse:
        return pb.GetRoleResponse(role=_to_message(await _get(self._db, request.role_id)))

    async def ListRoles(self, request: pb.ListRolesRequest, context: Context) -> pb.ListRolesResponse:
        page = self._paginator.page(request)
        rows = await roles.list_roles(self._db, organization_id=caller().active_organization_id, page=page)
        response = pb.ListRolesResponse()
        response.next_page_token = page.fill(response.roles, rows, _fill_message)
        return response

    async def UpdateRole(self, request: pb.UpdateRoleRequest, context: Context) -> pb.UpdateRoleResponse:
        organization_id, changed = caller().active_organization_id, _changes(request)
        call().note(target=UUID(request.role.id))
        try:
            async with changing(self._db, self._sessions, organization_id, permission=PERMISSION_ROLES_WRITE) as tx:
                before = await _get(tx, request.role.id)
                join_permissions(changed, "permissions", before.permissions)
                after = changed.get("permissions", [])
                await require_held(tx, organization_id, held(None, [*before.permissions, *after]))
                if "name" in changed:
                    others = await roles.list_role_names(tx, organization_id=organization_id)
                    others.pop(before.id)
                    _require_free(changed["name"], others.values())
                role = await roles.update_role(
                    tx,
                    role_id=before.id,
                    organization_id=organization_id,
                    changes=changed,
                    etag=etag_of(request.role),
                )
        except AlreadyExists:
            raise RpcError(Reason.REASON_ROLE_NAME_TAKEN) from None
        if role is None:
            raise _changed_since(request.role.id)
        return pb.UpdateRoleResponse(role=_to_message(role))

    async def DeleteRole(self, request: pb.DeleteRoleRequest, context: Context) -> pb.DeleteRoleResponse:
        organization_id = caller().active_organization_id
        call().note(target=UUID(request.role_id))
        async with changing(self._db, self._sessions, organization_id, permission=PERMISSION_ROLES_WRITE) as tx:
            role = await _get(tx, request.role_id)
            await require_held(tx, organization_id, held(None, role.permissions))
            if not await roles.delete_role(tx, role_id=role.id, organization_id=organization_id, etag=etag_of(request)):
                raise _changed_since(request.role_id)
        return pb.DeleteRoleResponse()

    async def GetMyPermissions(
        self, request: pb.GetMyPermissionsRequest, context: Context
    ) -> pb.GetMyPermissionsResponse:
        me = caller()
        return pb.GetMyPermissionsResponse(
            organization_id=str(me.organization_id or ""),
            permissions=of_accord(me.permissions),
            app_permissions=of_application(me.permissions),
        )


def _require_free(name: str, taken: Iterable[str]) -> None:
    """Raises ROLE_NAME_TAKEN. The organization is locked, so that no name is taken meanwhile."""
    if fold_name(name) in map(fold_name, taken):
        raise RpcError(Reason.REASON_ROLE_NAME_TAKEN)


async def _get(db: Executor, role_id: str) -> Role:
    """Raises ROLE_NOT_FOUND, also for a role of another organization."""
    role = await roles.get_role(db, role_id=UUID(role_id), organization_id=caller().active_organization_id)
    if role is None:
        raise RpcError(Reason.REASON_ROLE_NOT_FOUND, role_id=role_id)
    return role


def _changed_since(role_id: str) -> RpcError:
    return RpcError(Reason.REASON_ETAG_MISMATCH, role_id=role_id)


def _to_message(role: Role) -> pb.Role:
    message = pb.Role()
    _fill_message(message, role)
    return message


def _fill_message(message: pb.Role, role: Role) -> None:
    _fill(message, role)
    permissions = held(None, role.permissions)
    message.permissions.extend(of_accord(permissions))
    message.app_permissions.extend(of_application(permissions))
