"""People's accounts."""

from sqlalchemy import CheckConstraint, Index, String, func
from sqlalchemy.orm import Mapped, mapped_column

from accord_db.schema.shared import Model, Shared


class Account(Shared, Model):
    __tablename__ = "accounts"

    email: Mapped[str] = mapped_column(String(254))
    display_name: Mapped[str] = mapped_column(String(100))
    password_hash: Mapped[str] = mapped_column(info={"sensitive": True})

    __table_args__ = (CheckConstraint("char_length(display_name) >= 1", name="display_name_not_empty"),)


# Unique among the living, in upper or lower case: the address of a deleted account is free again.
Index(
    "uq_accounts_email_living",
    func.lower(Account.email),
    unique=True,
    postgresql_where=Account.deleted_at.is_(None),
)
