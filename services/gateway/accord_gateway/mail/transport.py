"""How a letter leaves, and the reasons why it was not sent."""

from typing import Protocol

from accord_gateway.mail.letters import Letter


class NotSent(Exception):
    """The message names neither the recipient nor the content. Server responses often do, so they are never part of it."""

    kind: str


class Unreachable(NotSent):
    """No letter can be sent at the moment."""

    kind = "unreachable"


class Deferred(NotSent):
    """The letter was not accepted, and may be accepted later."""

    kind = "deferred"


class Rejected(NotSent):
    """The letter will never be accepted."""

    kind = "rejected"


class Undecipherable(Deferred):
    """No configured key decrypts the letter. A later configuration may have the key."""

    kind = "undecipherable"


class Unwritable(Deferred):
    """The stored content or this program has a bug. A later release may send the letter."""

    kind = "faulty"


class Expired(Rejected):
    """The letter is too old to be useful."""

    kind = "expired"


class Transport(Protocol):
    async def send(self, letter: Letter) -> None:
        """Returns after the server has accepted responsibility for the letter. Raises NotSent."""

    async def close(self) -> None:
        """Releases the connection. A later `send` opens another one."""
