"""Whether the database answers at all."""

from typing import Final

from sqlalchemy import literal, select

from accord_db.database import Executor

_ONE: Final = select(literal(1))


async def is_alive(db: Executor) -> bool:
    return await db.first(_ONE) == 1
