"""Index deleted tasks, for the clean-up."""

import sqlalchemy as sa
from alembic import op

revision = "2026_12_01_0012"
down_revision = "2026_11_30_2347"

_NAME = "ix_tasks_deleted_at"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '1min'")
        # A failed attempt leaves an invalid index.
        op.drop_index(_NAME, "tasks", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            _NAME,
            "tasks",
            ["deleted_at"],
            postgresql_where=sa.text("deleted_at IS NOT NULL"),
            postgresql_concurrently=True,
        )
        op.execute("SET lock_timeout = '4s'")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index(_NAME, "tasks", if_exists=True, postgresql_concurrently=True)
