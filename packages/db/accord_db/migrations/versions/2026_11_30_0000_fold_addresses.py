"""Fold addresses independently of the collation; repair those of Turkish and Azerbaijani databases; find duplicates."""

from alembic import op

revision = "2026_11_30_0000"
down_revision = "2026_11_21_0200"

# In these databases `lower('I')` is `ı`, and the contract accepts only ASCII: a stored `ı` was an `I`.
_FOLDED = "lower(replace(email, 'ı', 'i') COLLATE \"C\")"


def upgrade() -> None:
    op.execute("SELECT set_config('accord.tenant', 'all', true)")
    _require_no_duplicates(
        "accounts",
        "deleted_at IS NULL",
        _FOLDED,
        "accounts have the same e-mail address in upper and lower case. Keep one of each group: change the address of the "
        "others, or set their deleted_at",
    )
    _require_no_duplicates(
        "roles",
        "true",
        'organization_id, lower(name COLLATE "C")',
        "roles of one organization have the same name in upper and lower case. Rename all but one of each group",
    )
    # Their mail went to another address, and does not verify this one.
    op.execute("DELETE FROM account_tokens WHERE email LIKE '%ı%'")
    op.execute(
        "UPDATE invitations SET ended_at = now(), outcome = 'cancelled' WHERE ended_at IS NULL AND email LIKE '%ı%'"
    )
    op.execute("UPDATE accounts SET email_verified_at = NULL WHERE email LIKE '%ı%'")
    for table in ("accounts", "account_tokens", "invitations"):
        op.execute(f"UPDATE {table} SET email = {_FOLDED} WHERE email <> {_FOLDED}")  # noqa: S608 — constants
    for table in ("accounts", "invitations"):
        op.create_check_constraint(
            op.f(f"ck_{table}_email_is_folded"), table, 'email = lower(email COLLATE "C")', postgresql_not_valid=True
        )


def _require_no_duplicates(table: str, where: str, key: str, found: str) -> None:
    op.execute(
        f"""
        DO $$
        DECLARE
            groups text;
        BEGIN
            SELECT string_agg(ids, '; ') INTO groups FROM (
                SELECT string_agg(id::text, ', ' ORDER BY created_at) AS ids
                FROM {table} WHERE {where} GROUP BY {key} HAVING count(*) > 1 LIMIT 20
            ) AS duplicates;
            IF groups IS NOT NULL THEN
                RAISE EXCEPTION '{found}, and migrate again. Groups by id, the oldest first: %', groups;
            END IF;
        END $$
        """  # noqa: S608 — constants
    )


def downgrade() -> None:
    for table in ("accounts", "invitations"):
        op.drop_constraint(op.f(f"ck_{table}_email_is_folded"), table, type_="check")
