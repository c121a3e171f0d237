"""Mail is stored in the transaction of the change it reports. The gateway sends it after the commit."""

from enum import StrEnum
from typing import NamedTuple, Self
from uuid import UUID

import orjson

from accord_auth.encryption import Keyring, Place
from accord_db.engine.database import Transaction
from accord_db.engine.ids import uuid7
from accord_db.queries import outbox


class Mail(StrEnum):
    """The kinds of mail: the name of the templates, and the values they take."""

    takes: frozenset[str]

    def __new__(cls, name: str, *values: str) -> Self:
        mail = str.__new__(cls, name)
        mail._value_ = name
        mail.takes = frozenset(values)
        return mail

    VERIFY_EMAIL = "verify_email", "display_name", "token"
    ACCOUNT_EXISTS = "account_exists", "display_name"
    CHANGE_EMAIL = "change_email", "display_name", "token"  # to the new address
    EMAIL_CHANGE_REQUESTED = "email_change_requested", "display_name", "new_email"  # to the old address
    EMAIL_CHANGED = "email_changed", "display_name", "new_email"  # to the old address
    RESET_PASSWORD = "reset_password", "display_name", "token"
    PASSWORD_CHANGED = "password_changed", "display_name"
    SECOND_FACTOR_ADDED = "second_factor_added", "display_name"
    SECOND_FACTOR_REMOVED = "second_factor_removed", "display_name"
    PROVIDER_LINKED = "provider_linked", "display_name", "provider"
    PROVIDER_UNLINKED = "provider_unlinked", "display_name", "provider"
    DEVICE_APPROVED = "device_approved", "display_name", "device_name", "peer"
    INVITATION = "invitation", "inviter", "organization", "token"


class Content(NamedTuple):
    """The encrypted part of a message."""

    to: str
    values: dict[str, str]

    def sealed(self, keys: Keyring, message_id: UUID) -> bytes:
        return keys.encrypt(orjson.dumps([self.to, self.values]), _place(message_id))

    @classmethod
    def opened(cls, sealed: bytes, keys: Keyring, message_id: UUID) -> Self:
        """Raises Undecipherable."""
        return cls(*orjson.loads(keys.decrypt(sealed, _place(message_id))))


class Outbox:
    """Encrypts messages, because they contain tokens that are hashed everywhere else."""

    def __init__(self, keys: Keyring) -> None:
        self._keys = keys

    async def post(self, tx: Transaction, mail: Mail, *, to: str | None, **values: str) -> None:
        """With `to=None` it does the same work and stores nothing. Raises TypeError if `values` are not those of the mail."""
        if values.keys() != mail.takes:
            raise TypeError(f"{mail} takes {sorted(mail.takes)}, not {sorted(values)}")
        message_id = uuid7()
        content = Content(to or "", values).sealed(self._keys, message_id)
        await outbox.insert_message(tx, message_id=message_id, template=mail, content=content, stored=to is not None)


def _place(message_id: UUID) -> Place:
    return Place("outbox_messages", "content", message_id)
