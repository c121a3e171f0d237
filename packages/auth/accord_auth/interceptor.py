"""Decides who may call a method, from the headers alone, before the message is read.

The handler of a method that is not public always has a caller.
"""

from accord.errors.v1.errors_pb2 import Reason
from accord.policy.v1.policy_pb2 import (
    ACCESS_ADMIN,
    ACCESS_PUBLIC,
    ACCESS_SERVICE,
    ACCESS_SIGNED_IN,
    Access,
)
from accord_auth.credentials import (
    Authenticated,
    Authenticator,
    Authenticators,
    Presented,
    credential_header,
    presented,
)
from accord_auth.streams import Admit, Streams
from accord_db.engine.clock import DatabaseClock
from accord_rpc.call import Context, call
from accord_rpc.caller import Caller
from accord_rpc.errors import RpcError
from accord_rpc.interceptor import CheckInterceptor, Next
from accord_rpc.policy import Method, Policy


class AuthInterceptor(CheckInterceptor):
    """Enforces the access, permission and credentials of one method's policy."""

    @classmethod
    def of(
        cls, method: Method, authenticators: Authenticators, streams: Streams, clock: DatabaseClock
    ) -> "AuthInterceptor":
        if method.policy.access != ACCESS_PUBLIC and (method.request_streaming or method.response_streaming):
            return StreamAuthInterceptor(method.policy, authenticators, clock, streams)
        return cls(method.policy, authenticators, clock)

    def __init__(self, policy: Policy, authenticators: Authenticators, clock: DatabaseClock) -> None:
        self._policy = policy
        self._authenticators = authenticators
        self._clock = clock

    async def admit(self, context: Context) -> None:
        header = credential_header(call().headers)
        if self._policy.access == ACCESS_PUBLIC:
            return
        credential = presented(header, context)
        self._admit_caller(credential, await self._authenticator(credential).authenticate(credential.token))

    def _authenticator(self, credential: Presented) -> Authenticator:
        """CREDENTIAL_INVALID is the only reason for a credential that is not valid, so that it reveals nothing."""
        authenticator = self._authenticators.get(credential.kind)
        if authenticator is None:
            raise RpcError(Reason.REASON_CREDENTIAL_INVALID)
        return authenticator

    def _admit_caller(self, credential: Presented, found: Authenticated | None) -> Authenticated:
        # Authenticators share the cache: its entry may be of another kind of credential.
        if found is None or found.caller.credential != credential.kind:
            raise RpcError(Reason.REASON_CREDENTIAL_INVALID)
        _authorize(found.caller, self._policy)
        self._require_fresh(found.caller)
        caller = found.permitted if self._policy.permission else found.caller
        current = call()
        current.caller, current.tenant = caller, caller.tenant
        return found

    def _require_fresh(self, caller: Caller) -> None:
        """By the database's clock, which wrote when the caller authenticated (ASVS 5.0, 7.5.1)."""
        if self._policy.fresh and self._clock.now() >= caller.fresh_until:
            raise RpcError(Reason.REASON_SIGN_IN_NOT_FRESH)


class StreamAuthInterceptor(AuthInterceptor):
    """For methods that stream: the call ends as soon as a new one would be refused."""

    def __init__(self, policy: Policy, authenticators: Authenticators, clock: DatabaseClock, streams: Streams) -> None:
        super().__init__(policy, authenticators, clock)
        self._streams = streams

    async def intercept(
        self,
        method: Next,
        request_or_iterator: object,
        context: Context,
        method_name: str,
    ) -> bytes | None:
        credential = presented(credential_header(call().headers), context)
        authenticator, changes = self._authenticator(credential), self._streams.changes
        found = self._admit_caller(credential, await authenticator.authenticate(credential.token))
        admit = self._still_admitted(found.caller)
        with self._streams.hold(authenticator, credential.token, found, changes=changes, admit=admit):
            return await method(request_or_iterator, context)

    def _still_admitted(self, began: Caller) -> Admit:
        """A recent sign-in is required only when the stream begins."""

        def admit(caller: Caller) -> None:
            _authorize(caller, self._policy)
            if caller.organization_id != began.organization_id:
                raise RpcError(Reason.REASON_PERMISSION_DENIED)  # the stream shows rows of the first organization

        return admit


def _authorize(caller: Caller, policy: Policy) -> None:
    if caller.password_change_required and not policy.before_password_change:
        raise RpcError(Reason.REASON_PASSWORD_CHANGE_REQUIRED)
    if not (caller.credential in policy.credentials and _of_kind(caller, policy.access) and _permitted(caller, policy)):
        raise RpcError(Reason.REASON_PERMISSION_DENIED)
    if policy.in_person and (caller.impersonator_id or caller.service_account_id):
        raise RpcError(Reason.REASON_PERMISSION_DENIED)


def _of_kind(caller: Caller, access: Access.ValueType) -> bool:
    """Whether the method's access includes this kind of caller. Unknown values of access include none."""
    for_itself = caller.service_account_id == caller.account_id
    if access == ACCESS_SERVICE:
        return for_itself
    if access == ACCESS_ADMIN:
        return caller.administrator
    return access == ACCESS_SIGNED_IN and not for_itself


def _permitted(caller: Caller, policy: Policy) -> bool:
    return not policy.permission or caller.holds(policy.permission, personal=policy.personal)
