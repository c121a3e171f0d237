"""Checks that the settings have each key that encrypted a stored value. Compares the names of keys and decrypts nothing."""

from collections.abc import Iterator

from accord_db.engine.database import Database
from accord_db.queries.encrypted import ENCRYPTED_COLUMNS, list_key_names
from accord_gateway.cli.commands import run_on_connection
from accord_gateway.cli.doctor.finding import Finding
from accord_gateway.secret_key import DEVELOPMENT_KEY
from accord_gateway.settings import Settings

RESTORE = "Restore it as the last of ENCRYPTION_KEYS; `accord rotate-keys` reports when it is no longer needed."


def findings(settings: Settings, dsn: str) -> Iterator[Finding]:
    """Requires a migrated database. Raises DatabaseError."""
    configured = set(settings.encryption_keys) or {DEVELOPMENT_KEY}
    needed = run_on_connection(dsn, "doctor", _key_names)
    missing = {column: names - configured for column, names in needed.items()}
    for column, names in missing.items():
        for name in sorted(names):
            yield Finding(f"{column} has values encrypted with the key {name}, which is not set", RESTORE)
    if not any(missing.values()):
        yield Finding("ENCRYPTION_KEYS has the keys of all encrypted values")


async def _key_names(database: Database) -> dict[str, set[str]]:
    return {str(column): await list_key_names(database, column=column) for column in ENCRYPTED_COLUMNS}
