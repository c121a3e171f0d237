"""Who is calling. The auth interceptor sets it before the message is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Final
from uuid import UUID

from accord.policy.v1.policy_pb2 import CREDENTIAL_API_KEY, Credential
from accord_db.engine.scope import current, tenant_of
from accord_rpc.call import Call
from accord_rpc.permissions import AnyPermission

# How long after authenticating a caller may call methods whose policy has `fresh` (ASVS 5.0, 7.5.1).
FRESH_FOR: Final = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class Caller:
    """`account_id` is the account of the user, or of a service that acts for itself.

    Authenticators cache callers, so what each call needs of their ids as text is made once."""

    account_id: UUID
    credential: Credential.ValueType
    # Of the session, the API key, or the service account.
    credential_id: UUID
    # The last authentication.
    authenticated_at: datetime
    # The active one. Its owner may have removed this account since: then `permissions` is empty. See `owner_id`.
    organization_id: UUID | None = None
    # The permissions in that organization. Without one: the scopes of a personal API key.
    permissions: frozenset[AnyPermission] = frozenset()
    administrator: bool = False
    # The administrator who acts as the account.
    impersonator_id: UUID | None = None
    # The service that calls, for itself or for a user.
    service_account_id: UUID | None = None
    # The session was opened with a password that an administrator set: most methods refuse it.
    password_change_required: bool = False
    # The limit of an API key over all methods.
    calls_per_minute: int | None = None
    # The method's policy has a permission, and the caller holds it or acts outside of an organization (`personal`). Set by
    # the auth interceptor; authenticators leave it False.
    permission_checked: bool = False

    def holds(self, permission: AnyPermission, *, personal: bool) -> bool:
        """`personal`: without an active organization, people need no permission on their own data, and API keys one of their
        scopes."""
        if self.organization_id is None and not personal:
            return False  # whatever the scopes of a personal API key are
        if self.organization_id is None and self.credential != CREDENTIAL_API_KEY:
            return True
        return permission in self.permissions

    @property
    def owner_id(self) -> UUID:
        """The owner of the rows that the call is about: the active organization, or the account if none is active.

        Raises NoPermissionChecked in a method whose policy has no permission: there the caller may be a former member."""
        self._require_permission_checked("owner_id")
        return self.organization_id or self.account_id

    @cached_property
    def tenant(self) -> bytes | None:
        """The tenant of the call's statements (accord_db/engine/scope.py): the account if no permission was checked."""
        return tenant_of(self.owner_id if self.permission_checked else self.account_id)

    @cached_property
    def rate_limit_key(self) -> str:
        """Whose calls are counted together, for limits by caller."""
        if self.credential == CREDENTIAL_API_KEY:
            return f"api_key:{self.credential_id}"
        return f"account:{self.account_id}"

    @cached_property
    def log_fields(self) -> Mapping[str, str]:
        """The account and the organization, and the impersonator or service that acts for the account."""
        ids = {
            "account_id": self.account_id,
            "organization_id": self.organization_id,
            "impersonator_id": self.impersonator_id,
            "service_account_id": self.service_account_id,
        }
        return {name: str(id_) for name, id_ in ids.items() if id_ is not None}

    @property
    def session_id(self) -> UUID:
        """For methods that accept no other credential."""
        if self.credential != Credential.CREDENTIAL_SESSION:
            raise NoCaller("session_id is not available without a session: the method accepts other credentials")
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
        """The end of a recent sign-in, for methods whose policy has `fresh`."""
        return self.authenticated_at + FRESH_FOR

    def _require_permission_checked(self, name: str) -> None:
        if not self.permission_checked:
            raise NoPermissionChecked(
                f"{name} is not available: the policy of this method has no permission, so no one has checked that the "
                "caller belongs to the active organization. Add a permission to the policy, or check the membership and "
                "name the organization with acting_for()."
            )


class NoPermissionChecked(LookupError):
    """An error in the handler, not of the caller."""


class NoCaller(LookupError):
    """An error in the handler, not of the caller."""


def caller() -> Caller:
    """The caller of a method that is not public. Raises NoCaller in others."""
    found = signed_in()
    if found is None:
        raise NoCaller("caller() is not available in a public method: its policy's access must be ACCESS_SIGNED_IN")
    return found


def signed_in() -> Caller | None:
    """None in public methods. For code that serves public and other methods alike; handlers use `caller()`."""
    scope = current()
    return scope.caller if isinstance(scope, Call) else None
