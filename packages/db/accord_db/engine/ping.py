"""Whether the database answers at all."""

from typing import Final

from sqlalchemy import literal, select

from accord_db.engine.database import Executor

_ONE: Final = select(literal(1))


async def ping(db: Executor) -> bool:
    return await db.fetch_one(_ONE) == 1
