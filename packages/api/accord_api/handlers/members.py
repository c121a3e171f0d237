"""MemberService: members of the active organization and their roles."""

from typing import Final, NamedTuple, TypedDict
from uuid import UUID

from accord.errors.v1.errors_pb2 import Reason
from accord.members.v1 import members_pb2 as pb
from accord.members.v1.members_pb2_grpc import MemberServiceServicer
from accord.policy.v1.policy_pb2 import PERMISSION_MEMBERS_WRITE, PERMISSION_ORGANIZATION_TRANSFER
from accord_api.dependencies import Dependencies
from accord_api.membership_changes import (
    changing,
    given_by,
    held_now,
    last_owner,
    organization_not_found,
    require_held,
    require_member,
    require_owner,
)
from accord_db.engine.database import Executor, Transaction
from accord_db.queries import api_keys, invitations, members
from accord_db.queries.members import MemberWithAccount
from accord_rpc.call import Context, call
from accord_rpc.caller import caller
from accord_rpc.errors import FieldViolation, RpcError, invalid
from accord_rpc.masks import MaskedChanges
from accord_rpc.messages import MessageMapper

_fill: Final = MessageMapper(pb.Member).fill


class MemberService(MemberServiceServicer):
    def __init__(self, dependencies: Dependencies) -> None:
        self._db = dependencies.database
        self._sessions = dependencies.sessions
        self._paginator = dependencies.paginator

    async def ListMembers(self, request: pb.ListMembersRequest, context: Context) -> pb.ListMembersResponse:
        page = self._paginator.page(request, row_id="account_id")
        rows = await members.list_members(self._db, organization_id=caller().active_organization_id, page=page)
        response = pb.ListMembersResponse()
        response.next_page_token = page.fill(response.members, rows, _fill_message)
        return response

    async def UpdateMember(self, request: pb.UpdateMemberRequest, context: Context) -> pb.UpdateMemberResponse:
        organization_id, account_id = caller().active_organization_id, UUID(request.member.account_id)
        call().note(target=account_id)
        async with changing(self._db, self._sessions, organization_id, permission=PERMISSION_MEMBERS_WRITE) as tx:
            now = await _get(tx, organization_id, account_id)
            if request.member.etag and UUID(request.member.etag) != now.etag:
                raise RpcError(Reason.REASON_ETAG_MISMATCH, account_id=str(account_id))
            await _give(tx, organization_id, now, _wanted(request, now))
            response = pb.UpdateMemberResponse()
            _fill_message(response.member, await _get(tx, organization_id, account_id))
        return response

    async def RemoveMember(self, request: pb.RemoveMemberRequest, context: Context) -> pb.RemoveMemberResponse:
        organization_id, account_id = caller().active_organization_id, UUID(request.account_id)
        call().note(target=account_id)
        async with changing(self._db, self._sessions, organization_id, permission=PERMISSION_MEMBERS_WRITE) as tx:
            now = await _get(tx, organization_id, account_id)
            await require_held(tx, organization_id, await held_now(tx, organization_id, account_id))
            await require_owner(tx, organization_id, now.role)
            await _remove(tx, organization_id, now)
        return pb.RemoveMemberResponse()

    async def LeaveOrganization(
        self, request: pb.LeaveOrganizationRequest, context: Context
    ) -> pb.LeaveOrganizationResponse:
        me, organization_id = caller().account_id, UUID(request.organization_id)
        call().note(target=organization_id)
        await require_member(self._db, organization_id)
        async with changing(self._db, self._sessions, organization_id) as tx:
            now = await members.get_member(tx, organization_id=organization_id, account_id=me)
            if now is None:
                raise organization_not_found(organization_id)
            await _remove(tx, organization_id, now)
        return pb.LeaveOrganizationResponse()

    async def TransferOwnership(
        self, request: pb.TransferOwnershipRequest, context: Context
    ) -> pb.TransferOwnershipResponse:
        me, organization_id, account_id = caller(), caller().active_organization_id, UUID(request.account_id)
        call().note(target=account_id)
        if account_id == me.account_id:
            raise invalid(FieldViolation("account_id", "must be another member's"))
        async with changing(
            self._db, self._sessions, organization_id, permission=PERMISSION_ORGANIZATION_TRANSFER
        ) as tx:
            await require_owner(tx, organization_id, "owner")
            await _get(tx, organization_id, account_id)
            for new_role, of in (("owner", account_id), ("admin", me.account_id)):
                await members.update_member_role(tx, organization_id=organization_id, account_id=of, role=new_role)
            response = pb.TransferOwnershipResponse()
            _fill_message(response.member, await _get(tx, organization_id, account_id))
        return response


class _MemberChanges(TypedDict, total=False):
    role: str | None
    role_ids: list[UUID]


_changes: Final = MaskedChanges(pb.UpdateMemberRequest, _MemberChanges)


class _Roles(NamedTuple):
    role: str | None
    role_ids: list[UUID]


def _wanted(request: pb.UpdateMemberRequest, now: MemberWithAccount) -> _Roles:
    """The roles after the update. Fields outside of the mask keep their values."""
    changed = _changes(request)
    return _Roles(changed.get("role", now.role), changed.get("role_ids", now.role_ids))


async def _give(tx: Transaction, organization_id: UUID, now: MemberWithAccount, wanted: _Roles) -> None:
    before = await held_now(tx, organization_id, now.account_id)
    after = await given_by(tx, organization_id, wanted.role, wanted.role_ids)
    await require_held(tx, organization_id, before | after)
    await require_owner(tx, organization_id, now.role, wanted.role)
    if wanted.role != "owner":
        await _require_another_owner(tx, organization_id, now)
    place = {"organization_id": organization_id, "account_id": now.account_id}
    await members.update_member_role(tx, **place, role=wanted.role)
    await members.replace_member_roles(tx, **place, role_ids=wanted.role_ids)


async def _remove(tx: Transaction, organization_id: UUID, now: MemberWithAccount) -> None:
    """Also ends what acts in the member's name, API keys and invitations, so that it does not return with a new membership."""
    await _require_another_owner(tx, organization_id, now)
    await members.delete_member(tx, organization_id=organization_id, account_id=now.account_id)
    await api_keys.revoke_api_keys_of_member(tx, organization_id=organization_id, created_by=now.account_id)
    await invitations.cancel_invitations_of_member(tx, organization_id=organization_id, created_by=now.account_id)


async def _require_another_owner(tx: Transaction, organization_id: UUID, now: MemberWithAccount) -> None:
    """Raises LAST_OWNER if the only owner would lose the role."""
    place = {"organization_id": organization_id, "account_id": now.account_id}
    if now.role == "owner" and not await members.has_other_owner(tx, **place):
        raise last_owner(organization_id)


async def _get(db: Executor, organization_id: UUID, account_id: UUID) -> MemberWithAccount:
    member = await members.get_member(db, organization_id=organization_id, account_id=account_id)
    if member is None:
        raise RpcError(Reason.REASON_MEMBER_NOT_FOUND, account_id=str(account_id))
    return member


def _fill_message(message: pb.Member, found: MemberWithAccount) -> None:
    _fill(message, found)
    message.email, message.display_name = found.email, found.display_name
    if found.image_url is not None:
        message.image_url = found.image_url
    message.role_ids.extend(map(str, found.role_ids))
