"""The roles that an organization has made for itself."""

from uuid import UUID

from sqlalchemy import ARRAY, CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from accord_db.engine.model import CreatedAt, Id, Model, UpdatedAt, Versioned


class Role(Versioned, Model):
    __tablename__ = "roles"

    id: Mapped[Id]
    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(100))
    # By their names in the contract. One that this release does not know permits nothing.
    permissions: Mapped[list[str]] = mapped_column(ARRAY(Text))
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[UpdatedAt]

    __table_args__ = (
        CheckConstraint("char_length(name) >= 1", name="name_not_empty"),
        # What member_roles refers to, so that both are of one organization.
        UniqueConstraint("organization_id", "id"),
    )


# Ignores the case of A to Z, in every database alike. Other letters: `list_role_names` in queries/roles.py.
Index("uq_roles_organization_id_folded_name", Role.organization_id, func.lower(Role.name.collate("C")), unique=True)
