"""`accord rotate-keys` re-encrypts, with the first of ENCRYPTION_KEYS, the values that the other keys encrypted.

It may run while gateways serve, be killed, and be repeated: it replaces each value separately, and only an unchanged one.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from accord_auth.encryption import Keyring, Place, Undecipherable
from accord_db.engine.database import Database
from accord_db.queries.encrypted import (
    ENCRYPTED_COLUMNS,
    EncryptedColumn,
    EncryptedValue,
    list_encrypted_values,
    update_encrypted_value,
)
from accord_gateway.cli.commands import run_on_database
from accord_gateway.secret_key import keyring, secret_key
from accord_gateway.settings import Settings

BATCH = 500  # values per query


@dataclass
class Rotation:
    """The result: re-encrypted values by column, in `late` those that another process encrypted with an old key meanwhile."""

    old_keys: tuple[str, ...]
    done: Counter[str] = field(default_factory=Counter)
    late: Counter[str] = field(default_factory=Counter)
    unreadable: list[Place] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return not self.unreadable and not self.late.total()

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        for column in map(str, ENCRYPTED_COLUMNS):
            yield f"{column}: {self.done[column] + self.late[column]} re-encrypted"
        for place in self.unreadable:
            yield f"✗ none of ENCRYPTION_KEYS decrypts {place}"
        if self.late.total():
            yield (
                "✗ A gateway still encrypts with an old key: restart the gateways that have other ENCRYPTION_KEYS, "
                "and run this command again."
            )
        elif self.old_keys:
            yield f"No longer needed in ENCRYPTION_KEYS: {', '.join(self.old_keys)}"


def rotate_keys(settings: Settings) -> Rotation:
    """Raises StartupError."""

    async def rotate(database: Database) -> Rotation:
        keys, rotation = keyring(settings, secret_key(settings)), Rotation(tuple(settings.encryption_keys)[1:])
        # The second pass finds values that a gateway encrypted with an old key during the first one.
        for count in (rotation.done, rotation.late):
            rotation.unreadable = [place async for place in _reencrypt(database, keys, count)]
        return rotation

    return run_on_database(settings, "rotate-keys", rotate)


async def _reencrypt(database: Database, keys: Keyring, count: Counter[str]) -> AsyncIterator[Place]:
    """Yields the places of values that no key decrypts, even if they name the first key."""
    for column in ENCRYPTED_COLUMNS:
        async for stored in _values(database, column):
            place = Place(column.table, column.name, stored.row_id, stored.account_id)
            try:
                value = keys.decrypt(stored.value, place)
            except Undecipherable:
                yield place
                continue
            if not keys.is_current(stored.value):
                count[str(column)] += await update_encrypted_value(
                    database, column=column, row_id=stored.row_id, old=stored.value, new=keys.encrypt(value, place)
                )


async def _values(database: Database, column: EncryptedColumn) -> AsyncIterator[EncryptedValue]:
    after = None
    while batch := await list_encrypted_values(database, column=column, after=after, limit=BATCH):
        for stored in batch:
            yield stored
        after = batch[-1].row_id
