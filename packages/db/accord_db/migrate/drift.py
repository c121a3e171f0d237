"""Whether the models and the migrations describe the same database, in PostgreSQL's own words."""

from pathlib import Path

import psycopg
from sqlalchemy import MetaData, NullPool, create_engine

from accord_db.engine.row_level_security import enable_row_level_security
from accord_db.migrate.apply import apply
from accord_db.migrate.revisions import VERSIONS
from accord_db.migrate.scratch import scratch_database
from accord_db.migrate.state import connected
from accord_db.schema import metadata as our_metadata

# As PostgreSQL prints them, so that a difference is one: alembic's comparison knows no CHECK and guesses at defaults.
# (contype n: PostgreSQL 18 has NOT NULL among the constraints as well.)
_CATALOG = """
    SELECT format('column %s.%s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod))
        || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
        || coalesce(' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), '')
    FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND c.relname <> 'alembic_version'
    UNION ALL
    SELECT format('constraint %s.%s %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
    FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND contype <> 'n' AND conrelid IS DISTINCT FROM to_regclass('alembic_version')
    UNION ALL
    SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'
    UNION ALL
    SELECT format('policy %s.%s for %s to %s USING %s WITH CHECK %s', tablename, policyname, cmd, roles, qual, with_check)
    FROM pg_policies WHERE schemaname = 'public'
    UNION ALL
    SELECT format('row-level security of %s%s', relname, CASE WHEN relforcerowsecurity THEN ', forced' END)
    FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relrowsecurity
"""


def check_drift(dsn: str, *, metadata: MetaData = our_metadata, versions: Path = VERSIONS) -> list[str]:
    """Each difference in a line. Asks scratch databases on the server of `dsn`, which is itself left alone."""
    with scratch_database(dsn) as by_migrations, scratch_database(dsn) as by_models:
        apply(by_migrations, versions=versions)
        _create_all(by_models, metadata)
        migrated, modelled = _catalog(by_migrations), _catalog(by_models)
    return [f"only in the models: {line}" for line in sorted(modelled - migrated)] + [
        f"only in the migrations: {line}" for line in sorted(migrated - modelled)
    ]


def _create_all(dsn: str, metadata: MetaData) -> None:
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn), poolclass=NullPool)
    metadata.create_all(engine)
    with connected(dsn) as connection:
        for table in metadata.sorted_tables:
            for statement in enable_row_level_security(table):
                connection.execute(statement.encode())


def _catalog(dsn: str) -> set[str]:
    with connected(dsn) as connection:
        return {line for (line,) in connection.execute(_CATALOG)}
