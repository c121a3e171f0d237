"""Organizations, and who belongs to them."""

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


# Unique among the living: the slug of a deleted organization is free again.
Index(
    "uq_organizations_slug_living", Organization.slug, unique=True, postgresql_where=Organization.deleted_at.is_(None)
)
# For the clean-up of those that were deleted long ago.
Index("ix_organizations_deleted_at", Organization.deleted_at, postgresql_where=Organization.deleted_at.is_not(None))


class Member(Versioned, Model):
    """An account in an organization. What it may do there is what its roles permit, the built-in one and the others."""

    __tablename__ = "members"

    organization_id: Mapped[UUID] = mapped_column(
        ForeignKey("organizations.id", ondelete="CASCADE"), primary_key=True, sort_order=-1
    )
    account_id: Mapped[UUID] = mapped_column(
        ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True, index=True, sort_order=-1
    )
    # One of BUILT_IN_ROLES; None if only roles of the organization's own say what they may do.
    role: Mapped[str | None]
    created_at: Mapped[CreatedAt]

    __table_args__ = (CheckConstraint("role IN ('owner', 'admin', 'member')", name="role_is_built_in"),)


class MemberRole(Model):
    """Both of one organization: a role of another one cannot be given."""

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
