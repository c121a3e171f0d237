"""Ways for a letter to leave, and what can come of it."""

from typing import Protocol

from accord_gateway.mail.letters import Letter


class NotSent(Exception):
    """Why, in words that name neither recipient nor content: what a server answers often does."""

    kind: str


class Unreachable(NotSent):
    """Nothing can be sent just now, this letter or any other."""

    kind = "unreachable"


class Deferred(NotSent):
    """The letter was not taken, and may be later."""

    kind = "deferred"


class Rejected(NotSent):
    """The letter will never be taken."""

    kind = "rejected"


class Undecipherable(Deferred):
    """No key that is at hand opens it; one may be brought back."""

    kind = "undecipherable"


class Unwritable(Deferred):
    """There is a fault in its content or in us; another release may do better."""

    kind = "faulty"


class Expired(Rejected):
    """It would come too late to be of use."""

    kind = "expired"


class Transport(Protocol):
    """Used by one thread at a time, but for `abort`."""

    def send(self, letter: Letter) -> None:
        """Returns when somebody else has become responsible for the letter. Raises NotSent."""

    def close(self) -> None:
        """Nothing is to be sent for a while."""

    def abort(self) -> None:
        """Ends a `send` that is under way in another thread."""
