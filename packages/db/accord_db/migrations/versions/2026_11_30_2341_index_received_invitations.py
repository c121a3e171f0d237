"""Index the pending invitations of an address, for the list of the invited person."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_30_2341"
down_revision = "2026_11_30_2328"

_NAME = "ix_invitations_folded_email_pending"
_EMAIL: sa.ColumnClause[str] = sa.literal_column('(email COLLATE "C")')


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '1min'")
        # A failed attempt leaves an invalid index.
        op.drop_index(_NAME, "invitations", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            _NAME, "invitations", [_EMAIL], postgresql_where=sa.text("ended_at IS NULL"), postgresql_concurrently=True
        )
        op.execute("SET lock_timeout = '4s'")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index(_NAME, "invitations", if_exists=True, postgresql_concurrently=True)
