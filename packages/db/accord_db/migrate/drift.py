"""Compares the schema of the models with that of the migrations, as PostgreSQL prints both."""

from pathlib import Path

import psycopg
from sqlalchemy import MetaData, NullPool, create_engine
from sqlalchemy.exc import SQLAlchemyError

from accord_db.engine.row_level_security import enable_row_level_security
from accord_db.migrate.apply import apply
from accord_db.migrate.revisions import VERSIONS, MigrationError
from accord_db.migrate.scratch import scratch_database
from accord_db.migrate.state import connected
from accord_db.schema import metadata as accord_metadata

# PostgreSQL's text is exact. alembic's comparison ignores CHECKs and is unreliable for defaults.
# (contype n: PostgreSQL 18 also lists NOT NULL as a constraint.)
_CATALOG = """
    SELECT format('column %s.%s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod))
        || coalesce(' COLLATE ' || nullif(a.attcollation, t.typcollation)::regcollation, '')
        || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
        || CASE a.attidentity WHEN '' THEN '' WHEN 'a' THEN ' IDENTITY ALWAYS' ELSE ' IDENTITY' END
        || CASE a.attgenerated WHEN '' THEN coalesce(' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), '')
           ELSE format(' GENERATED AS %s', pg_get_expr(d.adbin, d.adrelid)) END
    FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND c.relname <> 'alembic_version'
    UNION ALL
    SELECT format('constraint %s.%s %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
    FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND contype <> 'n' AND conrelid IS DISTINCT FROM to_regclass('alembic_version')
    UNION ALL
    SELECT format('type %s AS ENUM (%s)', t.typname, string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder))
    FROM pg_type t JOIN pg_enum e ON e.enumtypid = t.oid
    WHERE t.typnamespace = 'public'::regnamespace GROUP BY t.typname
    UNION ALL
    SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'
    UNION ALL
    SELECT format('policy %s.%s for %s to %s USING %s WITH CHECK %s', tablename, policyname, cmd, roles, qual, with_check)
    FROM pg_policies WHERE schemaname = 'public'
    UNION ALL
    SELECT format('row-level security of %s%s', relname, CASE WHEN relforcerowsecurity THEN ', forced' END)
    FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relrowsecurity
"""


def check_drift(dsn: str, *, metadata: MetaData = accord_metadata, versions: Path = VERSIONS) -> list[str]:
    """One line per difference. Uses scratch databases on the server of `dsn`. The database of `dsn` does not change."""
    with scratch_database(dsn) as by_migrations, scratch_database(dsn) as by_models:
        apply(by_migrations, versions=versions)
        create_models(by_models, metadata)
        migrated, modelled = _catalog(by_migrations), _catalog(by_models)
    return [f"only in the models: {line}" for line in sorted(modelled - migrated)] + [
        f"only in the migrations: {line}" for line in sorted(migrated - modelled)
    ]


def create_models(dsn: str, metadata: MetaData) -> None:
    """Raises MigrationError if PostgreSQL rejects the models."""
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn), poolclass=NullPool)
    try:
        metadata.create_all(engine)
    except SQLAlchemyError as error:
        raise MigrationError(f"the models cannot be created: {getattr(error, 'orig', None) or error}") from error
    with connected(dsn) as connection:
        for table in metadata.sorted_tables:
            for statement in enable_row_level_security(table):
                connection.execute(statement.encode())


def _catalog(dsn: str) -> set[str]:
    with connected(dsn) as connection:
        return {line for (line,) in connection.execute(_CATALOG)}
