"""Index the owners of API keys, for lists in the order of creation."""

from alembic import op

revision = "2026_11_30_2347"
down_revision = "2026_11_30_2346"

_NAME = "ix_api_keys_owner_id_created_at_id"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '1min'")
        # A failed attempt leaves an invalid index.
        op.drop_index(_NAME, "api_keys", if_exists=True, postgresql_concurrently=True)
        op.create_index(_NAME, "api_keys", ["owner_id", "created_at", "id"], postgresql_concurrently=True)
        op.execute("SET lock_timeout = '4s'")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index(_NAME, "api_keys", if_exists=True, postgresql_concurrently=True)
