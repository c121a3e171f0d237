"""Custom roles of organizations."""

from uuid import UUID

from sqlalchemy import ARRAY, CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from accord_db.engine.model import CreatedAt, Id, Model, UpdatedAt, Versioned


class Role(Versioned, Model):
    __tablename__ = "roles"

    id: Mapped[Id]
    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(100))
    # Names of permissions in the contract. A name that this release does not know grants nothing.
    permissions: Mapped[list[str]] = mapped_column(ARRAY(Text))
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[UpdatedAt]

    __table_args__ = (
        CheckConstraint("char_length(name) >= 1", name="name_not_empty"),
        # The target of a foreign key of member_roles, which ensures that both belong to the same organization.
        UniqueConstraint("organization_id", "id"),
    )


# Ignores the case of A to Z, regardless of the database's locale. For other letters see `list_role_names` in queries/roles.py.
Index("uq_roles_organization_id_folded_name", Role.organization_id, func.lower(Role.name.collate("C")), unique=True)
