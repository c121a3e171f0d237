"""Add the picture of accounts, provider and client metadata of sessions, and what provider tokens permit."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "2026_11_30_2318"
down_revision = "2026_11_30_1809"


def upgrade() -> None:
    op.add_column("account_tokens", sa.Column("provider", sa.String(length=50), nullable=True))
    op.add_column("accounts", sa.Column("image_url", sa.String(length=2048), nullable=True))
    op.add_column("linked_providers", sa.Column("refresh_token_expires_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column(
        "linked_providers", sa.Column("scopes", sa.ARRAY(sa.String(length=255)), server_default="{}", nullable=False)
    )
    op.add_column("linked_providers", sa.Column("refresh_failure", sa.String(length=63), nullable=True))
    op.add_column("sessions", sa.Column("provider", sa.String(length=50), nullable=True))
    op.add_column(
        "sessions",
        sa.Column(
            "client_metadata",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
    )
    op.execute(
        "ALTER TABLE linked_providers ADD CONSTRAINT ck_linked_providers_refresh_failure CHECK (refresh_failure IN ('no_refresh_token', 'expired', 'refused', 'invalid_response')) NOT VALID"
    )


def downgrade() -> None:
    op.drop_constraint(op.f("ck_linked_providers_refresh_failure"), "linked_providers", type_="check")
    op.drop_column("sessions", "client_metadata")
    op.drop_column("sessions", "provider")
    op.drop_column("linked_providers", "refresh_failure")
    op.drop_column("linked_providers", "scopes")
    op.drop_column("linked_providers", "refresh_token_expires_at")
    op.drop_column("accounts", "image_url")
    op.drop_column("account_tokens", "provider")
