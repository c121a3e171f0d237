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
    """`account_id` is whose call it is: a person's account, or that of a service which acts for nobody."""

    account_id: UUID
    credential: Credential.ValueType
    # Of the session, the API key, or the service account.
    credential_id: UUID
    # When they last proved who they are.
    authenticated_at: datetime
    # The one that is active, whether or not they (still) belong to it: then they hold no permission.
    organization_id: UUID | None = None
    # What they may do there.
    permissions: frozenset[Permission.ValueType] = frozenset()
    administrator: bool = False
    # The administrator who acts as the account.
    impersonator_id: UUID | None = None
    # The service that calls, for itself or for a person.
    service_account_id: UUID | None = None
    # How often an API key may call in a minute, whatever it calls.
    calls_per_minute: int | None = None

    @property
    def owner_id(self) -> UUID:
        """Whose things the call is about: the active organization's, and without one, their own."""
        return self.organization_id or self.account_id

    @property
    def session_id(self) -> UUID:
        """For methods that accept no other credential."""
        if self.credential != Credential.CREDENTIAL_SESSION:
            raise NoCaller("session_id was asked of a caller without a session: the method accepts other credentials")
        return self.credential_id

    @property
    def active_organization_id(self) -> UUID:
        """For methods that ask for a permission and are not `personal`: who holds one has an organization."""
        if self.organization_id is None:
            raise NoCaller("active_organization_id was asked where no permission is: there may be none")
        return self.organization_id

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
