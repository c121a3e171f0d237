"""An authenticator app, on a phone whose clock is the database's."""

from dataclasses import dataclass
from typing import Self

from sqlalchemy import func, select

from accord_auth import totp
from accord_db.engine.database import Executor

_NOW = select(func.now())


@dataclass(frozen=True)
class Authenticator:
    secret: bytes
    step: int

    @classmethod
    async def shown(cls, db: Executor, secret: bytes) -> Self:
        now = await db.fetch_one(_NOW)
        assert now is not None
        return cls(secret, totp.step_at(now))

    def code(self, off: int = 0) -> str:
        """Of the step in which it was shown the secret, or of one after or before it. Should another step begin meanwhile,
        those of this one and the next are still good."""
        return totp.code_at(self.secret, self.step + off)

    def wrong_code(self) -> str:
        near = {self.code(off) for off in range(-3, 4)}
        return next(code for code in (f"{number:06}" for number in range(8)) if code not in near)
