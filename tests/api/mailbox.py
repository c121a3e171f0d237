"""What was mailed, read where it waits to be sent: the outbox, decrypted with the key of the tests."""

from typing import Any, NamedTuple

from sqlalchemy import select

from accord_api.outbox import Content, Mail
from accord_db.engine.database import Database
from accord_db.schema import OutboxMessage
from accord_gateway.secret_key import keyring
from accord_gateway.settings import Settings
from tests.api.conftest import SECRET_KEY

_ALL = select(OutboxMessage).order_by(OutboxMessage.created_at, OutboxMessage.id)


class Letter(NamedTuple):
    template: Mail
    values: dict[str, str]


async def mailed(database: Database, to: str) -> list[Letter]:
    """All that is to be sent to an address, the oldest first."""
    return [letter for address, letter in await mailed_to_anyone(database) if address == to]


async def mailed_token(database: Database, to: str, template: Mail) -> str:
    """The one of the last such letter."""
    return [letter.values["token"] for letter in await mailed(database, to) if letter.template == template][-1]


async def mailed_to_anyone(database: Database) -> list[tuple[str, Letter]]:
    return [_letter(row) for row in await database.fetch_all(_ALL)]


def _letter(row: Any) -> tuple[str, Letter]:
    keys = keyring(Settings(port=0, metrics_port=0), SECRET_KEY)
    content = Content.opened(row.content, keys, row.id)
    return content.to, Letter(Mail(row.template), content.values)
