"""Accounts of persons."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Index, String, false, func
from sqlalchemy.orm import Mapped, mapped_column

from accord_db.engine.folding import EmailAddress
from accord_db.engine.model import Model, Shared, Versioned
from accord_db.engine.row_level_security import tenant_exempt


class Account(Shared, Versioned, Model):
    __tablename__ = "accounts"

    email: Mapped[str] = mapped_column(EmailAddress)
    # When the owner verified the address.
    email_verified_at: Mapped[datetime | None]
    display_name: Mapped[str] = mapped_column(String(100))
    # An https URL, which the server does not fetch.
    image_url: Mapped[str | None] = mapped_column(String(2048))
    # None if only identities of providers can sign in.
    password_hash: Mapped[str | None] = mapped_column(info={"sensitive": True})
    # An administrator set the password. The next session that it opens can only change it.
    password_change_required: Mapped[bool] = mapped_column(server_default=false())
    # The account is banned while this is set, but not after `banned_until`.
    banned_at: Mapped[datetime | None]
    banned_until: Mapped[datetime | None]
    ban_reason: Mapped[str | None] = mapped_column(String(500))
    # `administrator`: may administer the installation.
    role: Mapped[str] = mapped_column(server_default="person")

    __table_args__ = (
        CheckConstraint("char_length(display_name) >= 1", name="display_name_not_empty"),
        CheckConstraint('email = lower(email COLLATE "C")', name="email_is_folded"),
        CheckConstraint("role IN ('person', 'administrator')", name="role_is_known"),
        tenant_exempt("belongs to a person, and sign-in finds it before the caller is known"),
    )


# Unique among accounts that are not deleted. In the collation "C", whose order no update of a library changes.
Index(
    "uq_accounts_folded_email_living",
    Account.email.collate("C"),
    unique=True,
    postgresql_where=Account.deleted_at.is_(None),
)
# Named by the INSERT of the release before; the next release drops it.
Index(
    "uq_accounts_email_living",
    func.lower(Account.email),
    unique=True,
    postgresql_where=Account.deleted_at.is_(None),
)
# For searches by prefix, which need an order by code points. The case of display names follows the database's locale: they
# identify no one.
Index("ix_accounts_folded_email_id", Account.email.collate("C"), Account.id)
Index("ix_accounts_display_name_prefix", func.lower(Account.display_name).collate("C"), Account.id)
Index("ix_accounts_administrators", Account.id, postgresql_where=Account.role == "administrator")
Index("ix_accounts_banned", Account.id, postgresql_where=Account.banned_at.is_not(None))
# For the clean-up of deleted accounts.
Index("ix_accounts_deleted_at", Account.deleted_at, postgresql_where=Account.deleted_at.is_not(None))
