"""Indexes of folded addresses and names, in the collation "C". `uq_accounts_email_living` stays for the release before."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "2026_11_30_0001"
down_revision = "2026_11_30_0000"

_LIVING = sa.text("deleted_at IS NULL")
_EMAIL: sa.ColumnClause[str] = sa.literal_column('(email COLLATE "C")')
_NAME: sa.ColumnClause[str] = sa.literal_column('lower(name COLLATE "C")')


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '1min'")
        for table in ("accounts", "invitations"):
            op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT ck_{table}_email_is_folded")
        _create("uq_accounts_folded_email_living", "accounts", [_EMAIL], unique=True, where=_LIVING)
        _create("ix_accounts_folded_email_id", "accounts", [_EMAIL, "id"])
        _create("uq_roles_organization_id_folded_name", "roles", ["organization_id", _NAME], unique=True)
        op.drop_index("ix_accounts_email_prefix", "accounts", if_exists=True, postgresql_concurrently=True)
        op.drop_index("uq_roles_organization_id_name", "roles", if_exists=True, postgresql_concurrently=True)
        op.execute("SET lock_timeout = '4s'")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '1min'")
        _create("uq_roles_organization_id_name", "roles", ["organization_id", sa.text("lower(name)")], unique=True)
        _create("ix_accounts_email_prefix", "accounts", [sa.literal_column('(lower(email) COLLATE "C")'), "id"])
        for name, table in (
            ("uq_roles_organization_id_folded_name", "roles"),
            ("ix_accounts_folded_email_id", "accounts"),
            ("uq_accounts_folded_email_living", "accounts"),
        ):
            op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)
        op.execute("SET lock_timeout = '4s'")


def _create(
    name: str,
    table: str,
    columns: "Sequence[str | sa.ColumnElement[Any] | sa.TextClause]",
    *,
    unique: bool = False,
    where: sa.TextClause | None = None,
) -> None:
    """A failed attempt leaves an invalid index, hence the drop."""
    op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)
    op.create_index(name, table, list(columns), unique=unique, postgresql_where=where, postgresql_concurrently=True)
