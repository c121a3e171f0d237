"""Organizations, their members, roles, invitations and API keys; service accounts; tasks of organizations."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_21_0200"
down_revision = "2026_11_21_0100"

unsafe = {
    "adding-field-with-default": "owner_id rewrites tasks once, at 2 million rows per second; reads wait meanwhile",
    "adding-foreign-key-constraint": "the columns are new and empty",
    "ban-drop-constraint": "rows of an organization outlive the account of their creator",
    "constraint-missing-not-valid": "the columns are new and empty",
    "require-concurrent-index-creation": "the rewrite locks tasks anyway; audited calls and sign-ups wait too",
    "require-concurrent-index-deletion": "in the transaction that creates its replacement",
}


# The tenant-bound tables and their tenant columns.
_TENANT_COLUMNS = {
    "api_keys": "organization_id",
    "invitations": "organization_id",
    "member_roles": "organization_id",
    "members": "organization_id",
    "roles": "organization_id",
    "tasks": "owner_id",
}


def upgrade() -> None:
    op.create_table(
        "organizations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("slug", sa.String(length=63), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("etag", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.CheckConstraint("char_length(name) >= 1", name=op.f("ck_organizations_name_not_empty")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_organizations")),
    )
    op.create_index(
        "ix_organizations_deleted_at",
        "organizations",
        ["deleted_at"],
        unique=False,
        postgresql_where=sa.text("deleted_at IS NOT NULL"),
    )
    op.create_index(
        "uq_organizations_slug_living",
        "organizations",
        ["slug"],
        unique=True,
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "signing_keys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("private_key", sa.LargeBinary(), nullable=False),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signing_keys")),
    )
    op.create_index(op.f("ix_signing_keys_created_at"), "signing_keys", ["created_at"], unique=False)
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("prefix", sa.String(length=12), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("previous_key_hash", sa.LargeBinary(), nullable=True),
        sa.Column("previous_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("scopes", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("calls_per_minute", sa.BigInteger(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("etag", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.CheckConstraint(
            "(previous_key_hash IS NULL) = (previous_expires_at IS NULL)", name=op.f("ck_api_keys_previous_expires")
        ),
        sa.CheckConstraint("calls_per_minute >= 1", name=op.f("ck_api_keys_calls_per_minute_positive")),
        sa.CheckConstraint("char_length(name) >= 1", name=op.f("ck_api_keys_name_not_empty")),
        sa.CheckConstraint("octet_length(key_hash) = 32", name=op.f("ck_api_keys_key_hash_is_sha256")),
        sa.CheckConstraint(
            "octet_length(previous_key_hash) = 32", name=op.f("ck_api_keys_previous_key_hash_is_sha256")
        ),
        sa.ForeignKeyConstraint(
            ["created_by"], ["accounts.id"], name=op.f("fk_api_keys_created_by_accounts"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_api_keys_organization_id_organizations"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("key_hash", name=op.f("uq_api_keys_key_hash")),
        sa.UniqueConstraint("previous_key_hash", name=op.f("uq_api_keys_previous_key_hash")),
    )
    op.create_index(op.f("ix_api_keys_created_by"), "api_keys", ["created_by"], unique=False)
    op.create_index(
        "ix_api_keys_expires_at",
        "api_keys",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("expires_at IS NOT NULL"),
    )
    op.create_index(
        "ix_api_keys_revoked_at",
        "api_keys",
        ["revoked_at"],
        unique=False,
        postgresql_where=sa.text("revoked_at IS NOT NULL"),
    )
    op.create_index(
        "ix_api_keys_organization_id_created_at_id", "api_keys", ["organization_id", "created_at", "id"], unique=False
    )
    op.create_table(
        "invitations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=False),
        sa.Column("role", sa.Text(), nullable=True),
        sa.Column("role_ids", sa.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "outcome IN ('accepted', 'declined', 'cancelled')", name=op.f("ck_invitations_outcome_is_known")
        ),
        sa.CheckConstraint("role IN ('owner', 'admin', 'member')", name=op.f("ck_invitations_role_is_built_in")),
        sa.CheckConstraint("(outcome IS NULL) = (ended_at IS NULL)", name=op.f("ck_invitations_ended_somehow")),
        sa.CheckConstraint("octet_length(token_hash) = 32", name=op.f("ck_invitations_token_hash_is_sha256")),
        sa.ForeignKeyConstraint(
            ["created_by"], ["accounts.id"], name=op.f("fk_invitations_created_by_accounts"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_invitations_organization_id_organizations"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invitations")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_invitations_token_hash")),
    )
    op.create_index(op.f("ix_invitations_created_by"), "invitations", ["created_by"], unique=False)
    op.create_index(op.f("ix_invitations_expires_at"), "invitations", ["expires_at"], unique=False)
    op.create_index(
        "ix_invitations_organization_id_created_at_id",
        "invitations",
        ["organization_id", "created_at", "id"],
        unique=False,
    )
    op.create_table(
        "members",
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("role", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("etag", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.CheckConstraint("role IN ('owner', 'admin', 'member')", name=op.f("ck_members_role_is_built_in")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_members_account_id_accounts"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_members_organization_id_organizations"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organization_id", "account_id", name=op.f("pk_members")),
    )
    op.create_index(op.f("ix_members_account_id"), "members", ["account_id"], unique=False)
    op.create_table(
        "roles",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("permissions", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("etag", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.CheckConstraint("char_length(name) >= 1", name=op.f("ck_roles_name_not_empty")),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_roles_organization_id_organizations"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_roles")),
        sa.UniqueConstraint("organization_id", "id", name=op.f("uq_roles_organization_id_id")),
    )
    op.create_index(
        "uq_roles_organization_id_name", "roles", ["organization_id", sa.literal_column("lower(name)")], unique=True
    )
    op.create_table(
        "service_accounts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("audiences", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("previous_secret_hash", sa.LargeBinary(), nullable=True),
        sa.Column("previous_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_by", sa.Uuid(), nullable=True),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("etag", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.CheckConstraint(
            "(previous_secret_hash IS NULL) = (previous_expires_at IS NULL)",
            name=op.f("ck_service_accounts_previous_expires"),
        ),
        sa.CheckConstraint("char_length(name) >= 1", name=op.f("ck_service_accounts_name_not_empty")),
        sa.CheckConstraint(
            "octet_length(previous_secret_hash) = 32", name=op.f("ck_service_accounts_previous_secret_hash_is_sha256")
        ),
        sa.CheckConstraint("octet_length(secret_hash) = 32", name=op.f("ck_service_accounts_secret_hash_is_sha256")),
        sa.ForeignKeyConstraint(
            ["created_by"], ["accounts.id"], name=op.f("fk_service_accounts_created_by_accounts"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_service_accounts")),
        sa.UniqueConstraint("name", name=op.f("uq_service_accounts_name")),
    )
    op.create_index(op.f("ix_service_accounts_created_by"), "service_accounts", ["created_by"], unique=False)
    op.create_table(
        "member_roles",
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("role_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id", "account_id"],
            ["members.organization_id", "members.account_id"],
            name=op.f("fk_member_roles_organization_id_members"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id", "role_id"],
            ["roles.organization_id", "roles.id"],
            name=op.f("fk_member_roles_organization_id_roles"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organization_id", "account_id", "role_id", name=op.f("pk_member_roles")),
    )
    op.create_index(
        "ix_member_roles_organization_id_role_id", "member_roles", ["organization_id", "role_id"], unique=False
    )
    op.add_column("accounts", sa.Column("banned_until", sa.DateTime(timezone=True), nullable=True))
    op.add_column("accounts", sa.Column("ban_reason", sa.String(length=500), nullable=True))
    op.add_column("accounts", sa.Column("role", sa.Text(), server_default="person", nullable=False))
    op.create_check_constraint(op.f("ck_accounts_role_is_known"), "accounts", "role IN ('person', 'administrator')")
    op.create_index(
        "ix_accounts_email_prefix", "accounts", [sa.literal_column('(lower(email) COLLATE "C")'), "id"], unique=False
    )
    op.create_index(
        "ix_accounts_display_name_prefix",
        "accounts",
        [sa.literal_column('(lower(display_name) COLLATE "C")'), "id"],
        unique=False,
    )
    op.create_index(
        "ix_accounts_administrators",
        "accounts",
        ["id"],
        unique=False,
        postgresql_where=sa.text("role = 'administrator'"),
    )
    op.create_index(
        "ix_accounts_banned", "accounts", ["id"], unique=False, postgresql_where=sa.text("banned_at IS NOT NULL")
    )
    op.add_column("audit_events", sa.Column("organization_id", sa.Uuid(), nullable=True))
    op.add_column("audit_events", sa.Column("credential", sa.Text(), nullable=True))
    op.add_column("audit_events", sa.Column("credential_id", sa.Uuid(), nullable=True))
    op.add_column("audit_events", sa.Column("impersonator_id", sa.Uuid(), nullable=True))
    op.add_column("audit_events", sa.Column("service_account_id", sa.Uuid(), nullable=True))
    op.add_column("audit_events", sa.Column("stated_reason", sa.String(length=500), nullable=True))
    op.create_index("ix_audit_events_account_id_id", "audit_events", ["account_id", "id"], unique=False)
    op.create_index("ix_audit_events_organization_id_id", "audit_events", ["organization_id", "id"], unique=False)
    op.create_index(
        "ix_audit_events_actor_id_id",
        "audit_events",
        [sa.literal_column("coalesce(impersonator_id, service_account_id)"), "id"],
        unique=False,
        postgresql_where=sa.text("coalesce(impersonator_id, service_account_id) IS NOT NULL"),
    )
    op.create_index("ix_audit_events_method_id", "audit_events", ["method", "id"], unique=False)
    op.create_index(
        "ix_audit_events_target_id",
        "audit_events",
        ["target", "id"],
        unique=False,
        postgresql_where=sa.text("target IS NOT NULL"),
    )
    op.add_column("sessions", sa.Column("active_organization_id", sa.Uuid(), nullable=True))
    op.add_column("sessions", sa.Column("impersonator_id", sa.Uuid(), nullable=True))
    op.create_index(op.f("ix_sessions_active_organization_id"), "sessions", ["active_organization_id"], unique=False)
    op.create_index(op.f("ix_sessions_impersonator_id"), "sessions", ["impersonator_id"], unique=False)
    op.create_foreign_key(
        op.f("fk_sessions_impersonator_id_accounts"),
        "sessions",
        "accounts",
        ["impersonator_id"],
        ["id"],
        ondelete="CASCADE",
    )
    op.create_foreign_key(
        op.f("fk_sessions_active_organization_id_organizations"),
        "sessions",
        "organizations",
        ["active_organization_id"],
        ["id"],
        ondelete="SET NULL",
    )
    op.add_column("tasks", sa.Column("organization_id", sa.Uuid(), nullable=True))
    op.add_column(
        "tasks",
        sa.Column(
            "owner_id", sa.Uuid(), sa.Computed("coalesce(organization_id, created_by)", persisted=True), nullable=False
        ),
    )
    op.drop_index(op.f("ix_tasks_created_by_created_at_id"), table_name="tasks")
    op.create_index(op.f("ix_tasks_organization_id"), "tasks", ["organization_id"], unique=False)
    op.create_index("ix_tasks_owner_id_created_at_id", "tasks", ["owner_id", "created_at", "id"], unique=False)
    op.drop_constraint(op.f("fk_tasks_created_by_accounts"), "tasks", type_="foreignkey")
    op.create_foreign_key(
        op.f("fk_tasks_organization_id_organizations"),
        "tasks",
        "organizations",
        ["organization_id"],
        ["id"],
        ondelete="CASCADE",
    )
    _create_gateway_role()
    for table, tenant in _TENANT_COLUMNS.items():
        op.execute(f"""
            CREATE POLICY tenant ON {table} USING (
                {tenant} = (SELECT nullif(nullif(current_setting('accord.tenant', true), ''), 'all')::uuid)
                OR (SELECT current_setting('accord.tenant', true) = 'all')
            )
        """)
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")


def _create_gateway_role() -> None:
    """Roles belong to the server: the role may exist already, for another database or created by a superuser."""
    op.execute("""
        DO $$
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'accord_gateway') THEN
                CREATE ROLE accord_gateway NOLOGIN;
            END IF;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN
                NULL; -- another database is being migrated in the same moment
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION 'gateways act as the role accord_gateway, which is not there, and % may not make it. '
                    'Have a superuser run: CREATE ROLE accord_gateway NOLOGIN; GRANT accord_gateway TO the role that '
                    'gateways log in as; and migrate again (docs/operating.md, "Roles and migrations")', current_user
                    USING ERRCODE = 'insufficient_privilege';
        END
        $$
    """)
    # An installation with a single role must be allowed to act as this one. Superusers always are.
    op.execute("""
        DO $$
        BEGIN
            IF NOT pg_has_role('accord_gateway', 'USAGE') THEN
                GRANT accord_gateway TO CURRENT_USER;
            END IF;
        EXCEPTION
            WHEN insufficient_privilege THEN
                NULL; -- gateways log in as another role
        END
        $$
    """)
    op.execute("GRANT USAGE ON SCHEMA public TO accord_gateway")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO accord_gateway")
    op.execute("REVOKE UPDATE, DELETE ON audit_events FROM accord_gateway")
    op.execute("REVOKE INSERT, UPDATE, DELETE ON alembic_version FROM accord_gateway")
    op.execute(
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO accord_gateway"
    )


def downgrade() -> None:
    op.execute(
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE SELECT, INSERT, UPDATE, DELETE ON TABLES FROM accord_gateway"
    )
    op.execute("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM accord_gateway")
    op.execute("REVOKE ALL ON SCHEMA public FROM accord_gateway")
    op.execute("ALTER TABLE tasks NO FORCE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE tasks DISABLE ROW LEVEL SECURITY")
    op.execute("DROP POLICY tenant ON tasks")
    op.drop_constraint(op.f("fk_tasks_organization_id_organizations"), "tasks", type_="foreignkey")
    op.execute("DELETE FROM tasks WHERE organization_id IS NOT NULL")
    op.create_foreign_key(
        op.f("fk_tasks_created_by_accounts"), "tasks", "accounts", ["created_by"], ["id"], ondelete="CASCADE"
    )
    op.drop_index("ix_tasks_owner_id_created_at_id", table_name="tasks")
    op.drop_index(op.f("ix_tasks_organization_id"), table_name="tasks")
    op.create_index(
        op.f("ix_tasks_created_by_created_at_id"), "tasks", ["created_by", "created_at", "id"], unique=False
    )
    op.drop_column("tasks", "owner_id")
    op.drop_column("tasks", "organization_id")
    op.drop_constraint(op.f("fk_sessions_active_organization_id_organizations"), "sessions", type_="foreignkey")
    op.drop_constraint(op.f("fk_sessions_impersonator_id_accounts"), "sessions", type_="foreignkey")
    op.drop_index(op.f("ix_sessions_impersonator_id"), table_name="sessions")
    op.drop_index(op.f("ix_sessions_active_organization_id"), table_name="sessions")
    op.drop_column("sessions", "impersonator_id")
    op.drop_column("sessions", "active_organization_id")
    op.drop_index("ix_audit_events_target_id", table_name="audit_events")
    op.drop_index("ix_audit_events_method_id", table_name="audit_events")
    op.drop_index("ix_audit_events_actor_id_id", table_name="audit_events")
    op.drop_index("ix_audit_events_organization_id_id", table_name="audit_events")
    op.drop_index("ix_audit_events_account_id_id", table_name="audit_events")
    op.drop_column("audit_events", "stated_reason")
    op.drop_column("audit_events", "service_account_id")
    op.drop_column("audit_events", "impersonator_id")
    op.drop_column("audit_events", "credential_id")
    op.drop_column("audit_events", "credential")
    op.drop_column("audit_events", "organization_id")
    op.drop_index("ix_accounts_banned", table_name="accounts")
    op.drop_index("ix_accounts_administrators", table_name="accounts")
    op.drop_index("ix_accounts_display_name_prefix", table_name="accounts")
    op.drop_index("ix_accounts_email_prefix", table_name="accounts")
    op.drop_constraint(op.f("ck_accounts_role_is_known"), "accounts", type_="check")
    op.drop_column("accounts", "role")
    op.drop_column("accounts", "ban_reason")
    op.drop_column("accounts", "banned_until")
    op.drop_index("ix_member_roles_organization_id_role_id", table_name="member_roles")
    op.drop_table("member_roles")
    op.drop_index(op.f("ix_service_accounts_created_by"), table_name="service_accounts")
    op.drop_table("service_accounts")
    op.drop_index("uq_roles_organization_id_name", table_name="roles")
    op.drop_table("roles")
    op.drop_index(op.f("ix_members_account_id"), table_name="members")
    op.drop_table("members")
    op.drop_index("ix_invitations_organization_id_created_at_id", table_name="invitations")
    op.drop_index(op.f("ix_invitations_expires_at"), table_name="invitations")
    op.drop_index(op.f("ix_invitations_created_by"), table_name="invitations")
    op.drop_table("invitations")
    op.drop_index("ix_api_keys_organization_id_created_at_id", table_name="api_keys")
    op.drop_index(op.f("ix_api_keys_created_by"), table_name="api_keys")
    op.drop_table("api_keys")
    op.drop_index(op.f("ix_signing_keys_created_at"), table_name="signing_keys")
    op.drop_table("signing_keys")
    op.drop_index(
        "ix_organizations_deleted_at", table_name="organizations", postgresql_where=sa.text("deleted_at IS NOT NULL")
    )
    op.drop_index(
        "uq_organizations_slug_living", table_name="organizations", postgresql_where=sa.text("deleted_at IS NULL")
    )
    op.drop_table("organizations")
