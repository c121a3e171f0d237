"""Decides who may call a method, from the headers alone, before its message is read.

What `protectedProcedure` is elsewhere: behind it, a handler of a method that is not public has a caller.
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
from accord_db.engine.scope import tenant_of
from accord_rpc.call import Context, call
from accord_rpc.caller import Caller
from accord_rpc.errors import RpcError
from accord_rpc.interceptor import CheckInterceptor, Next
from accord_rpc.policy import Method, Policy


class AuthInterceptor(CheckInterceptor):
    """Holds every call of one method to the method's policy."""

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
        self._let_in(credential, await self._authenticator(credential).authenticate(credential.token))

    def _authenticator(self, credential: Presented) -> Authenticator:
        """Why a credential does not hold is nobody's business: one reason for all."""
        authenticator = self._authenticators.get(credential.kind)
        if authenticator is None:
            raise RpcError(Reason.REASON_CREDENTIAL_INVALID)
        return authenticator

    def _let_in(self, credential: Presented, found: Authenticated | None) -> Authenticated:
        # Finders share what is remembered: that of another kind is not what was presented.
        if found is None or found.caller.credential != credential.kind:
            raise RpcError(Reason.REASON_CREDENTIAL_INVALID)
        _authorize(found.caller, self._policy)
        self._require_fresh(found.caller)
        caller = found.permitted if self._policy.permission else found.caller
        current = call()
        current.caller, current.tenant = caller, tenant_of(caller.tenant_id)
        return found

    def _require_fresh(self, caller: Caller) -> None:
        """By the database's clock, which wrote when the caller authenticated (ASVS 5.0, 7.5.1)."""
        if self._policy.fresh and self._clock.now() >= caller.fresh_until:
            raise RpcError(Reason.REASON_SIGN_IN_NOT_FRESH)


class StreamAuthInterceptor(AuthInterceptor):
    """For methods that stream: also while the call lasts, which ends when a new one would be refused."""

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
        authenticator, doubts = self._authenticator(credential), self._streams.doubts
        found = self._let_in(credential, await authenticator.authenticate(credential.token))
        admit = self._goes_on(found.caller)
        with self._streams.hold(authenticator, credential.token, found, doubts=doubts, admit=admit):
            return await method(request_or_iterator, context)

    def _goes_on(self, began: Caller) -> Admit:
        """To have signed in recently was asked when it began."""

        def admit(caller: Caller) -> None:
            _authorize(caller, self._policy)
            if caller.organization_id != began.organization_id:
                raise RpcError(Reason.REASON_PERMISSION_DENIED)  # what it shows belongs to the one where it began

        return admit


def _authorize(caller: Caller, policy: Policy) -> None:
    if not (caller.credential in policy.credentials and _of_kind(caller, policy.access) and _permitted(caller, policy)):
        raise RpcError(Reason.REASON_PERMISSION_DENIED)
    if policy.in_person and (caller.impersonator_id or caller.service_account_id):
        raise RpcError(Reason.REASON_PERMISSION_DENIED)


def _of_kind(caller: Caller, access: Access.ValueType) -> bool:
    """Whether the access that a method grants includes this caller. What is not granted is denied."""
    for_itself = caller.service_account_id == caller.account_id
    if access == ACCESS_SERVICE:
        return for_itself
    if access == ACCESS_ADMIN:
        return caller.administrator
    return access == ACCESS_SIGNED_IN and not for_itself


def _permitted(caller: Caller, policy: Policy) -> bool:
    if not policy.permission or (policy.personal and caller.organization_id is None):
        return True
    return policy.permission in caller.permissions
