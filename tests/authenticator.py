"""An authenticator app that uses the clock of the database."""

from dataclasses import dataclass
from typing import Self

from sqlalchemy import func, select

from accord_auth import totp
from accord_db.engine.database import Executor

_NOW = select(func.now())


@dataclass(frozen=True)
class Authenticator:
    secret: bytes
    step: int  # at enrollment

    @classmethod
    async def enrolled(cls, db: Executor, secret: bytes) -> Self:
        now = await db.fetch_one(_NOW)
        assert now is not None
        return cls(secret, totp.step_at(now))

    def code(self, steps: int = 0) -> str:
        """The code of the enrollment step, or of a later (positive) or earlier step. The gateway accepts codes of adjacent
        steps, so a test may run past the end of the step."""
        return totp.code_at(self.secret, self.step + steps)

    def wrong_code(self) -> str:
        near = {self.code(steps) for steps in range(-3, 4)}
        return next(code for code in (f"{number:06}" for number in range(8)) if code not in near)
