"""`accord rotate-keys`: encrypts anew, with the first of ENCRYPTION_KEYS, what the others have encrypted.

It may run while gateways serve, be killed, and be repeated: each value is replaced by itself, if it is still the same.
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
from accord_gateway.cli.commands import carry_out
from accord_gateway.secret_key import keyring, secret_key
from accord_gateway.settings import Settings

BATCH = 500  # values that are read at a time


@dataclass
class Rotation:
    """What became of the values: `late` ones were encrypted with a former key after the first look at all of them."""

    former_keys: tuple[str, ...]
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
            yield f"{column}: {self.done[column] + self.late[column]} encrypted anew"
        for place in self.unreadable:
            yield f"✗ {place} cannot be read with any of ENCRYPTION_KEYS"
        if self.late.total():
            yield (
                "✗ Somebody still encrypts with a former key: restart the gateways that serve with other ENCRYPTION_KEYS, "
                "and run this again."
            )
        elif self.former_keys:
            yield f"Nothing needs these of ENCRYPTION_KEYS any more: {', '.join(self.former_keys)}"


def rotate_keys(settings: Settings) -> Rotation:
    """Raises StartRefused."""

    async def work(database: Database) -> Rotation:
        keys, rotation = keyring(settings, secret_key(settings)), Rotation(tuple(settings.encryption_keys)[1:])
        # Twice: the second look finds what was encrypted behind the back of the first one.
        for count in (rotation.done, rotation.late):
            rotation.unreadable = [place async for place in _encrypt_anew(database, keys, count)]
        return rotation

    return carry_out(settings, "rotate-keys", work)


async def _encrypt_anew(database: Database, keys: Keyring, count: Counter[str]) -> AsyncIterator[Place]:
    """Every value that is not under the first key. Yields the places of those that no key reads, that one included."""
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
