"""Whether what is encrypted can be read: by the names of the keys that it needs, as no value is opened here."""

from collections.abc import Iterator

from accord_db.engine.database import Database
from accord_db.queries.encrypted import ENCRYPTED_COLUMNS, list_key_names
from accord_gateway.cli.commands import ask
from accord_gateway.cli.doctor.finding import Finding
from accord_gateway.secret_key import DEVELOPMENT_KEY
from accord_gateway.settings import Settings

PUT_BACK = "Put it back, last in ENCRYPTION_KEYS; `accord rotate-keys` says when nothing needs it any more."


def findings(settings: Settings, address: str) -> Iterator[Finding]:
    """Of a database that is migrated. Raises DatabaseError."""
    at_hand = set(settings.encryption_keys) or {DEVELOPMENT_KEY}
    needed = ask(address, "doctor", _needed)
    missing = {column: names - at_hand for column, names in needed.items()}
    for column, names in missing.items():
        for name in sorted(names):
            yield Finding(f"{column} has values that the key {name} encrypted, which is not at hand", PUT_BACK)
    if not any(missing.values()):
        yield Finding("the keys of all that is encrypted are at hand")


async def _needed(database: Database) -> dict[str, set[str]]:
    return {str(column): await list_key_names(database, column=column) for column in ENCRYPTED_COLUMNS}
