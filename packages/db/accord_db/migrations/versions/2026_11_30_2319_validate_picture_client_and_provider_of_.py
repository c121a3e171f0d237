"""Validate the CHECK of the migration before, after its lock is released."""

from alembic import op

revision = "2026_11_30_2319"
down_revision = "2026_11_30_2318"


def upgrade() -> None:
    op.execute("ALTER TABLE linked_providers VALIDATE CONSTRAINT ck_linked_providers_refresh_failure")


def downgrade() -> None:
    pass
