"""Sessions as messages."""

from typing import Final

from accord.accounts.v1.accounts_pb2 import Session as SessionMessage
from accord_db.schema import Session
from accord_rpc.messages import MessageMapper

_fill: Final = MessageMapper(SessionMessage).fill


def to_session(session: Session) -> SessionMessage:
    """Without `status` and `current`."""
    message = SessionMessage()
    fill_session(message, session)
    return message


def fill_session(message: SessionMessage, session: Session) -> None:
    _fill(message, session)
    message.client_metadata.update(session.client_metadata)
