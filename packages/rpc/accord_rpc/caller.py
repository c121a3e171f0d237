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
    # The active one. Its owner may have removed this account since: then `permissions` is empty. See `owner_id`.
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
    # The method's policy has a permission, and the caller holds it or acts outside of an organization (`personal`). Set by
    # the auth interceptor; authenticators leave it False.
    permission_checked: bool = False

    @property
    def owner_id(self) -> UUID:
        """The owner of the rows that the call is about: the active organization, or the account if none is active.

        Raises NoPermissionChecked in a method whose policy has no permission: there the caller may be a former member."""
        self._require_permission_checked("owner_id")
        return self.organization_id or self.account_id

    @property
    def tenant_id(self) -> UUID:
        """The tenant of the call's statements (accord_db/engine/tenant.py): the account if no permission was checked."""
        return self.owner_id if self.permission_checked else self.account_id

    @property
    def session_id(self) -> UUID:
        """For methods that accept no other credential."""
        if self.credential != Credential.CREDENTIAL_SESSION:
            raise NoCaller("session_id was asked of a caller without a session: the method accepts other credentials")
        return self.credential_id

    @property
    def active_organization_id(self) -> UUID:
        """For methods whose policy has a permission and is not `personal`. Raises NoPermissionChecked in other methods."""
        self._require_permission_checked("active_organization_id")
        if self.organization_id is None:
            raise NoCaller(
                "active_organization_id is not available: the method is personal, and no organization is active"
            )
        return self.organization_id

    @property
    def fresh_until(self) -> datetime:
        """Until when that counts as recent, for methods whose policy says `fresh`."""
        return self.authenticated_at + FRESH_FOR

    def _require_permission_checked(self, name: str) -> None:
        if not self.permission_checked:
            raise NoPermissionChecked(
                f"{name} is not available: the policy of this method has no permission, so no one has checked that the "
                "caller belongs to the active organization. Add a permission to the policy, or check the membership and "
                "name the organization with acting_for()."
            )


class NoPermissionChecked(LookupError):
    """A fault of the handler, not of the caller."""


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
