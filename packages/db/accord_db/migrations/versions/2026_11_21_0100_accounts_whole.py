"""Tokens, second factors, providers, devices, outbox and rate limits; columns for them in accounts and sessions."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_21_0100"
down_revision = "2026_11_21_0000"

unsafe = {
    "adding-field-with-default": "gen_random_uuid() rewrites accounts once: the table is small",
    "ban-drop-not-null": "the release before fails to read only accounts that this one creates without a password",
    "require-concurrent-index-creation": "the tables are small: an index takes no longer than the rewrite of accounts",
}


def upgrade() -> None:
    op.create_table(
        "outbox_messages",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("template", sa.String(length=50), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox_messages")),
    )
    op.create_index(op.f("ix_outbox_messages_next_attempt_at"), "outbox_messages", ["next_attempt_at"], unique=False)
    op.create_table(
        "rate_limits",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("reset_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_rate_limits")),
    )
    op.create_index(op.f("ix_rate_limits_reset_at"), "rate_limits", ["reset_at"], unique=False)
    op.create_table(
        "account_tokens",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column(
            "purpose",
            sa.Enum(
                "verify_email",
                "change_email",
                "reset_password",
                "second_step",
                name=op.f("ck_account_tokens_purpose"),
                native_enum=False,
                create_constraint=True,
            ),
            nullable=False,
        ),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("octet_length(token_hash) = 32", name=op.f("ck_account_tokens_token_hash_is_sha256")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_account_tokens_account_id_accounts"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_account_tokens")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_account_tokens_token_hash")),
    )
    op.create_index(op.f("ix_account_tokens_account_id"), "account_tokens", ["account_id"], unique=False)
    op.create_index(op.f("ix_account_tokens_expires_at"), "account_tokens", ["expires_at"], unique=False)
    op.create_table(
        "device_sign_ins",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("device_code_hash", sa.LargeBinary(), nullable=False),
        sa.Column("user_code_hash", sa.LargeBinary(), nullable=False),
        sa.Column("device_name", sa.String(length=100), nullable=False),
        sa.Column("peer", sa.Text(), nullable=False),
        sa.Column("user_agent", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("interval_seconds", sa.BigInteger(), nullable=False),
        sa.Column("last_polled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("account_id", sa.Uuid(), nullable=True),
        sa.Column("approved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("denied_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("session_id", sa.Uuid(), nullable=True),
        sa.Column("authenticated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "(account_id IS NULL) = (approved_at IS NULL AND denied_at IS NULL)",
            name=op.f("ck_device_sign_ins_whoever_decided_is_known"),
        ),
        sa.CheckConstraint("approved_at IS NULL OR denied_at IS NULL", name=op.f("ck_device_sign_ins_decided_once")),
        sa.CheckConstraint(
            "octet_length(device_code_hash) = 32", name=op.f("ck_device_sign_ins_device_code_hash_is_sha256")
        ),
        sa.CheckConstraint(
            "octet_length(user_code_hash) = 32", name=op.f("ck_device_sign_ins_user_code_hash_is_sha256")
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_device_sign_ins_account_id_accounts"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_device_sign_ins")),
        sa.UniqueConstraint("device_code_hash", name=op.f("uq_device_sign_ins_device_code_hash")),
        sa.UniqueConstraint("user_code_hash", name=op.f("uq_device_sign_ins_user_code_hash")),
    )
    op.create_index(op.f("ix_device_sign_ins_account_id"), "device_sign_ins", ["account_id"], unique=False)
    op.create_index(op.f("ix_device_sign_ins_expires_at"), "device_sign_ins", ["expires_at"], unique=False)
    op.create_table(
        "linked_providers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("provider", sa.String(length=50), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("access_token", sa.LargeBinary(), nullable=True),
        sa.Column("refresh_token", sa.LargeBinary(), nullable=True),
        sa.Column("access_token_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refreshing_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_linked_providers_account_id_accounts"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_linked_providers")),
        sa.UniqueConstraint("issuer", "subject", name=op.f("uq_linked_providers_issuer_subject")),
    )
    op.create_index(op.f("ix_linked_providers_account_id"), "linked_providers", ["account_id"], unique=False)
    op.create_table(
        "provider_sign_ins",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("provider", sa.String(length=50), nullable=False),
        sa.Column("redirect_uri", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("octet_length(token_hash) = 32", name=op.f("ck_provider_sign_ins_token_hash_is_sha256")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_provider_sign_ins_account_id_accounts"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_provider_sign_ins")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_provider_sign_ins_token_hash")),
    )
    op.create_index(op.f("ix_provider_sign_ins_account_id"), "provider_sign_ins", ["account_id"], unique=False)
    op.create_index(op.f("ix_provider_sign_ins_expires_at"), "provider_sign_ins", ["expires_at"], unique=False)
    op.create_table(
        "second_factors",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_step", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_second_factors_account_id_accounts"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_second_factors")),
        sa.UniqueConstraint("account_id", name=op.f("uq_second_factors_account_id")),
    )
    op.create_index(
        "ix_second_factors_created_at_unconfirmed",
        "second_factors",
        ["created_at"],
        unique=False,
        postgresql_where=sa.text("confirmed_at IS NULL"),
    )
    op.create_table(
        "recovery_codes",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("second_factor_id", sa.Uuid(), nullable=False),
        sa.Column("code_hash", sa.LargeBinary(), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("octet_length(code_hash) = 32", name=op.f("ck_recovery_codes_code_hash_is_sha256")),
        sa.ForeignKeyConstraint(
            ["second_factor_id"],
            ["second_factors.id"],
            name=op.f("fk_recovery_codes_second_factor_id_second_factors"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recovery_codes")),
        sa.UniqueConstraint("code_hash", name=op.f("uq_recovery_codes_code_hash")),
    )
    op.create_index(op.f("ix_recovery_codes_second_factor_id"), "recovery_codes", ["second_factor_id"], unique=False)
    op.add_column("accounts", sa.Column("email_verified_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("accounts", sa.Column("banned_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("accounts", sa.Column("etag", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False))
    op.alter_column("accounts", "password_hash", existing_type=sa.TEXT(), nullable=True)
    op.create_index(
        "ix_accounts_deleted_at",
        "accounts",
        ["deleted_at"],
        unique=False,
        postgresql_where=sa.text("deleted_at IS NOT NULL"),
    )
    op.add_column(
        "sessions",
        sa.Column(
            "idle_expires_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now() + interval '14 days'"),
            nullable=False,
        ),
    )
    op.add_column(
        "sessions",
        sa.Column("last_used_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    )
    op.add_column(
        "sessions",
        sa.Column("authenticated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    )
    op.create_index(op.f("ix_sessions_expires_at"), "sessions", ["expires_at"], unique=False)
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"], unique=False)
    # Existing sessions must not count as freshly authenticated.
    op.execute("UPDATE sessions SET authenticated_at = created_at, last_used_at = created_at")
    # Default privileges may have granted more: gateways only insert into the audit log.
    op.execute("""
        DO $$
        DECLARE grantee text;
        BEGIN
            FOR grantee IN
                SELECT DISTINCT acl.grantee::regrole::text
                FROM pg_class, aclexplode(relacl) AS acl
                WHERE oid = 'audit_events'::regclass AND acl.grantee NOT IN (0, relowner)
            LOOP
                EXECUTE 'REVOKE UPDATE, DELETE, TRUNCATE ON audit_events FROM ' || grantee;
            END LOOP;
            REVOKE UPDATE, DELETE, TRUNCATE ON audit_events FROM PUBLIC;
        END
        $$
    """)


def downgrade() -> None:
    op.drop_index("ix_idempotency_keys_created_at", table_name="idempotency_keys")
    op.drop_index(op.f("ix_sessions_expires_at"), table_name="sessions")
    op.drop_column("sessions", "authenticated_at")
    op.drop_column("sessions", "last_used_at")
    op.drop_column("sessions", "idle_expires_at")
    op.drop_index("ix_accounts_deleted_at", table_name="accounts", postgresql_where=sa.text("deleted_at IS NOT NULL"))
    op.execute("UPDATE accounts SET password_hash = '' WHERE password_hash IS NULL")
    op.alter_column("accounts", "password_hash", existing_type=sa.TEXT(), nullable=False)
    op.drop_column("accounts", "etag")
    op.drop_column("accounts", "banned_at")
    op.drop_column("accounts", "email_verified_at")
    op.drop_index(op.f("ix_recovery_codes_second_factor_id"), table_name="recovery_codes")
    op.drop_table("recovery_codes")
    op.drop_index(
        "ix_second_factors_created_at_unconfirmed",
        table_name="second_factors",
        postgresql_where=sa.text("confirmed_at IS NULL"),
    )
    op.drop_table("second_factors")
    op.drop_index(op.f("ix_provider_sign_ins_expires_at"), table_name="provider_sign_ins")
    op.drop_index(op.f("ix_provider_sign_ins_account_id"), table_name="provider_sign_ins")
    op.drop_table("provider_sign_ins")
    op.drop_index(op.f("ix_linked_providers_account_id"), table_name="linked_providers")
    op.drop_table("linked_providers")
    op.drop_index(op.f("ix_device_sign_ins_expires_at"), table_name="device_sign_ins")
    op.drop_index(op.f("ix_device_sign_ins_account_id"), table_name="device_sign_ins")
    op.drop_table("device_sign_ins")
    op.drop_index(op.f("ix_account_tokens_expires_at"), table_name="account_tokens")
    op.drop_index(op.f("ix_account_tokens_account_id"), table_name="account_tokens")
    op.drop_table("account_tokens")
    op.drop_index(op.f("ix_rate_limits_reset_at"), table_name="rate_limits")
    op.drop_table("rate_limits")
    op.drop_index(op.f("ix_outbox_messages_next_attempt_at"), table_name="outbox_messages")
    op.drop_table("outbox_messages")
