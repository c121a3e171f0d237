"""Organizations and their members."""

from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from accord_db.engine.model import CreatedAt, Model, Shared, Versioned
from accord_db.engine.row_level_security import tenant_exempt

BUILT_IN_ROLES = ("owner", "admin", "member")


class Organization(Shared, Versioned, Model):
    __tablename__ = "organizations"

    name: Mapped[str] = mapped_column(String(100))
    slug: Mapped[str] = mapped_column(String(63))

    __table_args__ = (
        CheckConstraint("char_length(name) >= 1", name="name_not_empty"),
        tenant_exempt("an account sees all organizations it is a member of, and members is tenant-bound"),
    )


# Unique among organizations that are not deleted: deletion frees the slug.
Index(
    "uq_organizations_slug_living", Organization.slug, unique=True, postgresql_where=Organization.deleted_at.is_(None)
)
# For the clean-up of deleted organizations.
Index("ix_organizations_deleted_at", Organization.deleted_at, postgresql_where=Organization.deleted_at.is_not(None))


class Member(Versioned, Model):
    """An account's membership. It has the permissions of its built-in role and of its custom roles."""

    __tablename__ = "members"

    organization_id: Mapped[UUID] = mapped_column(
        ForeignKey("organizations.id", ondelete="CASCADE"), primary_key=True, sort_order=-1
    )
    account_id: Mapped[UUID] = mapped_column(
        ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True, index=True, sort_order=-1
    )
    # One of BUILT_IN_ROLES; None if the member has only custom roles.
    role: Mapped[str | None]
    created_at: Mapped[CreatedAt]

    __table_args__ = (CheckConstraint("role IN ('owner', 'admin', 'member')", name="role_is_built_in"),)


class MemberRole(Model):
    """A custom role of a member. The foreign keys ensure that both belong to the same organization."""

    __tablename__ = "member_roles"

    organization_id: Mapped[UUID] = mapped_column(primary_key=True)
    account_id: Mapped[UUID] = mapped_column(primary_key=True)
    role_id: Mapped[UUID] = mapped_column(primary_key=True)

    __table_args__ = (
        ForeignKeyConstraint(
            ["organization_id", "account_id"], ["members.organization_id", "members.account_id"], ondelete="CASCADE"
        ),
        ForeignKeyConstraint(["organization_id", "role_id"], ["roles.organization_id", "roles.id"], ondelete="CASCADE"),
        Index("ix_member_roles_organization_id_role_id", "organization_id", "role_id"),
    )
