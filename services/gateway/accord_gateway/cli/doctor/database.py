"""Checks that the database is reachable, recent, writable, permitted and migrated, and that its encryption keys are set."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from accord_db.engine.errors import DatabaseError, Unavailable
from accord_db.migrate import MigrationError, current_and_head
from accord_db.migrate.gateway_role import role_problem
from accord_db.migrate.state import connect
from accord_db.migrate.text import read_text_settings
from accord_gateway.cli.doctor import keys
from accord_gateway.cli.doctor.finding import Finding
from accord_gateway.errors import StartupError
from accord_gateway.settings import Settings, ignore_libpq_environment
from accord_gateway.startup import DatabaseAddresses, embedded_postgres, gateway_role, open_database
from accord_postgres import EmbeddedPostgresError
from accord_postgres.binaries import binaries

OLDEST = 15
SERVER_STATE = """
    SELECT clock_timestamp(), current_setting('transaction_read_only') = 'on', has_schema_privilege(current_schema(), 'CREATE')
"""
MAX_CLOCK_DIFFERENCE = timedelta(seconds=10)
SYNCHRONIZE = (
    "Synchronize both with NTP. Sessions, tokens, bans and limits follow the clock of the database; the log, TLS certificates "
    "and the check that a time in a request is in the future follow the clock of the machine."
)
CHECK_URL = "Check that PostgreSQL runs there, and check DATABASE_URL."
READ_ONLY = Finding(
    "the database is read-only",
    "Promote the standby, switch default_transaction_read_only off, or specify the primary in DATABASE_URL.",
)


def findings(settings: Settings) -> Iterator[Finding]:
    if settings.database_url is None:
        yield _embedded_programs()
        if not embedded_postgres(settings).log_file.exists():
            yield Finding("the embedded PostgreSQL has no data yet: the first start creates it")
            return
    elif ignored := ignore_libpq_environment(settings):
        yield Finding(f"DATABASE_URL specifies the server; these variables are ignored: {', '.join(ignored)}")
    try:
        with open_database(settings) as addresses:
            yield from _server(addresses, settings)
    except StartupError as error:
        yield Finding(f"database: {error}", CHECK_URL)


def _embedded_programs() -> Finding:
    try:
        return Finding(f"the programs of the embedded PostgreSQL, in {binaries()}")
    except EmbeddedPostgresError as error:
        return Finding(str(error), "Run `make setup`.")


def _server(addresses: DatabaseAddresses, settings: Settings) -> Iterator[Finding]:
    try:
        connections = [*map(_connection, dict.fromkeys((addresses.direct, addresses.pooled)))]
        for connection in connections:
            yield from connection
        if not any(READ_ONLY in connection for connection in connections):
            yield from _migrations(addresses, settings)
    except DatabaseError as error:
        yield Finding(f"cannot connect to the database: {error}", CHECK_URL)


def _connection(dsn: str) -> list[Finding]:
    try:
        connection = connect(dsn)
    except Unavailable:
        connection = connect(dsn, writable=False)
    with connection:
        info = connection.info
        database = f"PostgreSQL {info.server_version // 10000}, database {info.dbname} on {info.host}"
        supported = info.server_version >= OLDEST * 10000
        row = connection.execute(SERVER_STATE).fetchone()
        assert row is not None
        now, read_only, may_create_tables = row
        return [
            Finding(database, "" if supported else f"Accord needs PostgreSQL {OLDEST} or later."),
            _text(dsn),
            _clock(datetime.now(UTC) - now),
            READ_ONLY if read_only else _privilege(info.user, granted=may_create_tables),
        ]


def _privilege(user: str, *, granted: bool) -> Finding:
    if granted:
        return Finding(f"{user} may create tables there")
    remedy = f'Migrations need this privilege: GRANT CREATE ON SCHEMA public TO "{user}"'
    return Finding(f"{user} may not create tables there", remedy)


def _clock(ahead: timedelta) -> Finding:
    if abs(ahead) <= MAX_CLOCK_DIFFERENCE:
        return Finding("the clocks of this machine and of the database agree")
    seconds = round(ahead.total_seconds())
    difference = f"{seconds} s ahead of" if seconds > 0 else f"{-seconds} s behind"
    return Finding(f"the clock of this machine is {difference} the clock of the database", SYNCHRONIZE)


def _text(dsn: str) -> Finding:
    settings = read_text_settings(dsn)
    if problem := settings.encoding_problem or settings.collation_problem:
        return Finding(*problem)
    return Finding(f"text is UTF-8; searches ignore case by the rules of the locale {settings.locale}")


def _migrations(addresses: DatabaseAddresses, settings: Settings) -> Iterator[Finding]:
    try:
        current, head = current_and_head(addresses.direct)
    except MigrationError as error:
        yield Finding(f"migrations: {error}", "See docs/troubleshooting.md.")
        return
    if current == head:
        yield Finding(f"migrated to {head}")
        yield (row_level_security := _row_level_security(addresses, settings))
        if not row_level_security.is_problem:  # without the role, the query for keys would fail
            yield from keys.findings(settings, addresses.direct)
    elif settings.migrate_on_start:
        yield Finding(f"at migration {current or 'none'}; the next start migrates it to {head}")
    else:
        yield Finding(f"at migration {current or 'none'}, and this release needs {head}", "Run `accord migrate`.")


def _row_level_security(addresses: DatabaseAddresses, settings: Settings) -> Finding:
    problem = role_problem(addresses.pooled, gateway_role(settings))
    return Finding(*problem) if problem else Finding("row-level security restricts gateways to one tenant at a time")
