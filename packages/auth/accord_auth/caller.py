"""Who is calling: set by the auth interceptor before the message is read, asked for by handlers."""

from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from accord.policy.v1.policy_pb2 import Credential, Permission

# How long after authenticating a caller may call methods whose policy says `fresh` (ASVS 5.0, 7.5.1).
FRESH_FOR: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    account_id: UUID
    session_id: UUID
    credential: Credential.ValueType
    # When they last proved who they are.
    authenticated_at: datetime
    permissions: frozenset[Permission.ValueType] = frozenset()

    @property
    def fresh_until(self) -> datetime:
        """Until when that counts as recent, for methods whose policy says `fresh`."""
        return self.authenticated_at + FRESH_FOR


class NoCaller(LookupError):
    """A fault of ours, not of whoever called."""


_caller: ContextVar[Caller] = ContextVar("caller")


def caller() -> Caller:
    """Never None: in a public method, which has no caller, asking is a fault."""
    try:
        return _caller.get()
    except LookupError:
        raise NoCaller("caller() was asked in a call that has none: its method's access must be signed-in") from None


def set_caller(caller: Caller) -> None:
    """For the rest of this call. There is no reset: each call has a context of its own, and a streaming handler still
    runs when the interceptor has returned."""
    _caller.set(caller)


def signed_in() -> Caller | None:
    """For what serves public and other methods alike, such as logs and audit; handlers ask `caller()`."""
    return _caller.get(None)
