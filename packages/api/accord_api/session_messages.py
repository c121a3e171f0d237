"""Sessions as messages."""

from typing import Final
from uuid import UUID

from accord.accounts.v1.accounts_pb2 import Session as SessionMessage
from accord.accounts.v1.accounts_pb2 import SessionStatus
from accord_db.queries.sessions import SessionWithStatus, Status
from accord_db.schema import Session
from accord_rpc.messages import MessageMapper

_fill: Final = MessageMapper(SessionMessage).fill
_STATUSES: Final[dict[Status, SessionStatus.ValueType]] = {
    "active": SessionStatus.SESSION_STATUS_ACTIVE,
    "expired": SessionStatus.SESSION_STATUS_EXPIRED,
    "revoked": SessionStatus.SESSION_STATUS_REVOKED,
}


def to_session(session: Session) -> SessionMessage:
    """Without `status` and `current`."""
    message = SessionMessage()
    _fill_row(message, session)
    return message


def fill_session(message: SessionMessage, found: SessionWithStatus, *, calling: UUID) -> None:
    """`calling` is the id of the calling session."""
    _fill_row(message, found.session)
    message.status = _STATUSES[found.status]
    message.current = found.session.id == calling


def _fill_row(message: SessionMessage, session: Session) -> None:
    _fill(message, session)
    message.client_metadata.update(session.client_metadata)
