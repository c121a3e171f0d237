"""InvitationService: invitations to the active organization, and those that the caller has received."""

from datetime import timedelta
from typing import ClassVar, Final
from uuid import UUID

from accord.errors.v1.errors_pb2 import Reason
from accord.invitations.v1 import invitations_pb2 as pb
from accord.invitations.v1.invitations_pb2_grpc import InvitationServiceServicer
from accord.policy.v1.policy_pb2 import PERMISSION_INVITATIONS_WRITE
from accord_api.dependencies import Dependencies
from accord_api.membership_changes import (
    Permissions,
    changing,
    given_by,
    held_now,
    is_owner,
    require_held,
    require_owner,
)
from accord_api.outbox import Mail
from accord_api.own_account import get_own_account, get_own_account_locked
from accord_auth.tokens import INVITATION_PREFIX, new_token, token_hash, well_formed
from accord_db.engine.database import Executor, Transaction
from accord_db.engine.ids import uuid7
from accord_db.engine.scope import acting_for
from accord_db.queries import invitations, members, organizations, roles
from accord_db.queries.invitations import InvitationWithStatus, OpenInvitation, ReceivedInvitation, Status
from accord_db.schema import Account, Invitation
from accord_rpc.call import Context, call
from accord_rpc.caller import caller
from accord_rpc.errors import RpcError
from accord_rpc.messages import MessageMapper
from accord_rpc.permissions import ROLE_NAMES, ROLES, held

LIFETIME: Final = timedelta(days=7)
# Open invitations of one organization.
_MAX_OPEN: Final = 1000

_fill: Final = MessageMapper(pb.Invitation).fill
_fill_mine: Final = MessageMapper(pb.MyInvitation).fill
_STATUSES: Final[dict[Status, pb.InvitationStatus.ValueType]] = {
    "pending": pb.InvitationStatus.INVITATION_STATUS_PENDING,
    "accepted": pb.InvitationStatus.INVITATION_STATUS_ACCEPTED,
    "declined": pb.InvitationStatus.INVITATION_STATUS_DECLINED,
    "cancelled": pb.InvitationStatus.INVITATION_STATUS_CANCELLED,
    "expired": pb.InvitationStatus.INVITATION_STATUS_EXPIRED,
}


class InvitationService(InvitationServiceServicer):
    resources: ClassVar = {pb.Invitation: Invitation, pb.MyInvitation: Invitation}

    def __init__(self, dependencies: Dependencies) -> None:
        self._db = dependencies.database
        self._sessions = dependencies.sessions
        self._outbox = dependencies.outbox
        self._paginator = dependencies.paginator

    async def CreateInvitation(
        self, request: pb.CreateInvitationRequest, context: Context
    ) -> pb.CreateInvitationResponse:
        organization_id, invitation_id, token = caller().active_organization_id, uuid7(), new_token(INVITATION_PREFIX)
        role, role_ids = ROLE_NAMES.get(request.role), [UUID(role_id) for role_id in request.role_ids]
        call().note(target=invitation_id)
        async with changing(self._db, self._sessions, organization_id, permission=PERMISSION_INVITATIONS_WRITE) as tx:
            inviter = _proved(await get_own_account(tx))
            await require_held(tx, organization_id, await given_by(tx, organization_id, role, role_ids))
            await require_owner(tx, organization_id, role)
            await _require_invitable(tx, organization_id, request.email)
            invitation = await invitations.insert_invitation(
                tx,
                invitation_id=invitation_id,
                organization_id=organization_id,
                email=request.email,
                role=role,
                role_ids=role_ids,
                token_hash=token_hash(token),
                created_by=inviter.id,
                lifetime=LIFETIME,
            )
            await self._mail(tx, invitation, token, inviter)
        response = pb.CreateInvitationResponse()
        _fill_message(response.invitation, InvitationWithStatus(invitation, "pending"))
        return response

    async def ListInvitations(self, request: pb.ListInvitationsRequest, context: Context) -> pb.ListInvitationsResponse:
        page = self._paginator.page(request)
        rows = await invitations.list_invitations(
            self._db, organization_id=caller().active_organization_id, page=page, show_ended=request.show_ended
        )
        response = pb.ListInvitationsResponse()
        response.next_page_token = page.fill(response.invitations, rows, _fill_message, key=lambda row: row.invitation)
        return response

    async def CancelInvitation(
        self, request: pb.CancelInvitationRequest, context: Context
    ) -> pb.CancelInvitationResponse:
        organization_id, invitation_id = caller().active_organization_id, UUID(request.invitation_id)
        call().note(target=invitation_id)
        async with changing(self._db, self._sessions, organization_id, permission=PERMISSION_INVITATIONS_WRITE) as tx:
            found = await _get(tx, invitation_id, organization_id)
            _, permissions = await _left(tx, found.invitation)
            await require_held(tx, organization_id, permissions)
            await require_owner(tx, organization_id, found.invitation.role)
            if await invitations.end_invitation(
                tx, invitation_id=invitation_id, organization_id=organization_id, outcome="cancelled"
            ):
                found = await _get(tx, invitation_id, organization_id)
        response = pb.CancelInvitationResponse()
        _fill_message(response.invitation, found)
        return response

    async def AcceptInvitation(
        self, request: pb.AcceptInvitationRequest, context: Context
    ) -> pb.AcceptInvitationResponse:
        async with self._db.transaction() as tx:
            organization_id = await self._join(tx, await _find(tx, request.token))
        return pb.AcceptInvitationResponse(organization_id=str(organization_id))

    async def DeclineInvitation(
        self, request: pb.DeclineInvitationRequest, context: Context
    ) -> pb.DeclineInvitationResponse:
        async with self._db.transaction() as tx:
            await _decline(tx, await _find(tx, request.token))
        return pb.DeclineInvitationResponse()

    async def ListMyInvitations(
        self, request: pb.ListMyInvitationsRequest, context: Context
    ) -> pb.ListMyInvitationsResponse:
        page, me = self._paginator.page(request), _proved(await get_own_account(self._db))
        rows = await invitations.list_received_invitations(self._db, email=me.email, page=page)
        response = pb.ListMyInvitationsResponse()
        response.next_page_token = page.fill(response.invitations, rows, _fill_received, key=lambda row: row.invitation)
        return response

    async def AcceptMyInvitation(
        self, request: pb.AcceptMyInvitationRequest, context: Context
    ) -> pb.AcceptMyInvitationResponse:
        async with self._db.transaction() as tx:
            organization_id = await self._join(tx, await _find_received(tx, UUID(request.invitation_id)))
        return pb.AcceptMyInvitationResponse(organization_id=str(organization_id))

    async def DeclineMyInvitation(
        self, request: pb.DeclineMyInvitationRequest, context: Context
    ) -> pb.DeclineMyInvitationResponse:
        async with self._db.transaction() as tx:
            await _decline(tx, await _find_received(tx, UUID(request.invitation_id)))
        return pb.DeclineMyInvitationResponse()

    async def _join(self, tx: Transaction, found: OpenInvitation) -> UUID:
        """The organization, of which the caller is a member now."""
        organization_id = found.invitation.organization_id
        async with changing(tx, self._sessions, organization_id):
            await _accept(tx, found)
        return organization_id

    async def _mail(self, tx: Transaction, invitation: Invitation, token: str, inviter: Account) -> None:
        organization = await organizations.get_organization_locked(tx, organization_id=invitation.organization_id)
        assert organization is not None, "it is locked already"
        await self._outbox.post(
            tx,
            Mail.INVITATION,
            to=invitation.email,
            inviter=inviter.display_name,
            organization=organization.name,
            token=token,
        )


def _proved(account: Account) -> Account:
    """Raises EMAIL_NOT_VERIFIED: an unverified address may belong to another person."""
    if account.email_verified_at is None:
        raise RpcError(Reason.REASON_EMAIL_NOT_VERIFIED)
    return account


async def _require_invitable(tx: Executor, organization_id: UUID, email: str) -> None:
    if await invitations.is_member(tx, organization_id=organization_id, email=email):
        raise RpcError(Reason.REASON_MEMBER_EXISTS)
    if await invitations.is_invited(tx, organization_id=organization_id, email=email):
        raise RpcError(Reason.REASON_INVITATION_EXISTS)
    if await invitations.count_open_invitations(tx, organization_id=organization_id) >= _MAX_OPEN:
        raise RpcError(Reason.REASON_TOO_MANY_INVITATIONS)


async def _left(tx: Executor, invitation: Invitation) -> tuple[list[UUID], Permissions]:
    """The roles of the invitation that still exist, and the permissions they give."""
    left = await roles.get_permissions_of_roles(
        tx, organization_id=invitation.organization_id, role_ids=invitation.role_ids
    )
    return list(left), held(invitation.role, [name for names in left.values() for name in names])


async def _get(tx: Executor, invitation_id: UUID, organization_id: UUID) -> InvitationWithStatus:
    found = await invitations.get_invitation(tx, invitation_id=invitation_id, organization_id=organization_id)
    if found is None:
        raise RpcError(Reason.REASON_INVITATION_NOT_FOUND, invitation_id=str(invitation_id))
    return found


async def _find(tx: Transaction, token: str) -> OpenInvitation:
    """The open invitation with this token, if it was sent to the caller. Locks the caller's account and the organization."""
    me = _proved(await get_own_account_locked(tx))
    if not well_formed(token, INVITATION_PREFIX):
        raise _void()
    found = await invitations.get_open_invitation_locked(tx, token_hash=token_hash(token), email=me.email)
    if found is None:
        raise _void()
    call().note(target=found.invitation.id)
    return found


async def _find_received(tx: Transaction, invitation_id: UUID) -> OpenInvitation:
    """As `_find`, by id. The id is no secret: it finds only what was sent to the caller's verified address."""
    call().note(target=invitation_id)
    me = _proved(await get_own_account_locked(tx))
    found = await invitations.get_received_invitation_locked(tx, invitation_id=invitation_id, email=me.email)
    if found is None:
        raise _void()
    return found


async def _decline(tx: Transaction, found: OpenInvitation) -> None:
    invitation = found.invitation
    with acting_for(invitation.organization_id):
        ended = await invitations.end_invitation(
            tx, invitation_id=invitation.id, organization_id=invitation.organization_id, outcome="declined"
        )
    if not ended:
        raise _void()


async def _accept(tx: Transaction, found: OpenInvitation) -> None:
    invitation, organization_id = found.invitation, found.invitation.organization_id
    role_ids, permissions = await _left(tx, invitation)
    inviter = await held_now(tx, organization_id, invitation.created_by)
    if not (found.inviter_is_active and inviter >= permissions | {PERMISSION_INVITATIONS_WRITE}):
        raise _void()
    if invitation.role == "owner" and not await is_owner(tx, organization_id, invitation.created_by):
        raise _void()
    if not await invitations.end_invitation(
        tx, invitation_id=invitation.id, organization_id=organization_id, outcome="accepted"
    ):
        raise _void()
    me = {"organization_id": organization_id, "account_id": caller().account_id}
    if not await members.insert_member(tx, **me, role=invitation.role):
        raise RpcError(Reason.REASON_MEMBER_EXISTS)
    await members.replace_member_roles(tx, **me, role_ids=role_ids)


def _void() -> RpcError:
    """One reason for every problem of the token or the id."""
    return RpcError(Reason.REASON_INVITATION_NOT_FOUND)


def _fill_message(message: pb.Invitation, found: InvitationWithStatus) -> None:
    invitation = found.invitation
    _fill(message, invitation)
    if invitation.role is not None:
        message.role = ROLES[invitation.role]
    message.role_ids.extend(map(str, invitation.role_ids))
    message.status = _STATUSES[found.status]


def _fill_received(message: pb.MyInvitation, found: ReceivedInvitation) -> None:
    _fill_mine(message, found.invitation)
    message.organization_name, message.inviter_name = found.organization_name, found.inviter_name
    if found.invitation.role is not None:
        message.role = ROLES[found.invitation.role]
