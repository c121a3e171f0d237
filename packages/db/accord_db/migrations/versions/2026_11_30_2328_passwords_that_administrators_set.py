"""Mark passwords that an administrator set, and the sessions that they open."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_30_2328"
down_revision = "2026_11_30_2319"


def upgrade() -> None:
    op.add_column(
        "accounts", sa.Column("password_change_required", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )
    op.add_column(
        "sessions", sa.Column("password_change_required", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )


def downgrade() -> None:
    op.drop_column("sessions", "password_change_required")
    op.drop_column("accounts", "password_change_required")
