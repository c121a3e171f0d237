"""Permit API keys without an organization, which belong to their creator."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_30_2346"
down_revision = "2026_11_30_2341"

unsafe = {
    "adding-field-with-default": "owner_id rewrites api_keys once, at 2 million rows per second; reads wait meanwhile",
    "ban-drop-not-null": "the release before reads keys together with their organizations, so that it finds no personal keys",
}


def upgrade() -> None:
    op.add_column(
        "api_keys",
        sa.Column(
            "owner_id", sa.Uuid(), sa.Computed("coalesce(organization_id, created_by)", persisted=True), nullable=False
        ),
    )
    _bind("owner_id")
    op.alter_column("api_keys", "organization_id", existing_type=sa.UUID(), nullable=True)


def _bind(tenant: str) -> None:
    op.execute(f"""
        ALTER POLICY tenant ON api_keys USING (
            {tenant} = (SELECT nullif(nullif(current_setting('accord.tenant', true), ''), 'all')::uuid)
            OR (SELECT current_setting('accord.tenant', true) = 'all')
        )
    """)


def downgrade() -> None:
    op.execute("SELECT set_config('accord.tenant', 'all', true)")
    op.execute("DELETE FROM api_keys WHERE organization_id IS NULL")
    op.alter_column("api_keys", "organization_id", existing_type=sa.UUID(), nullable=False)
    _bind("organization_id")
    op.drop_column("api_keys", "owner_id")
