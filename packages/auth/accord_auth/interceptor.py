"""Decides who may call a method, from the headers alone, before its message is read.

What `protectedProcedure` is elsewhere: behind it, a handler of a method that is not public has a caller.
"""

from datetime import UTC, datetime

from accord.errors.v1.errors_pb2 import Reason
from accord.policy.v1.policy_pb2 import (
    ACCESS_ADMIN,
    ACCESS_PUBLIC,
    ACCESS_SERVICE,
    ACCESS_SIGNED_IN,
    CREDENTIAL_SESSION,
    Access,
)
from accord_auth.caller import Caller, set_caller
from accord_auth.credentials import Presented, credential_header, presented
from accord_auth.gate import Context, Gate, Next, headers
from accord_auth.permissions import held
from accord_auth.policy import Method, Policy
from accord_auth.refused import Refused
from accord_auth.sessions import LiveSession, Sessions


class AccessInterceptor(Gate):
    """Holds every call of one method to the method's policy."""

    @classmethod
    def of(cls, method: Method, sessions: Sessions) -> "AccessInterceptor":
        streams = method.request_streaming or method.response_streaming
        with_session = method.policy.access != ACCESS_PUBLIC
        return (StreamAccessInterceptor if streams and with_session else cls)(method.policy, sessions)

    def __init__(self, policy: Policy, sessions: Sessions) -> None:
        self._policy = policy
        self._sessions = sessions

    async def admit(self, context: Context) -> None:
        header = credential_header(headers())
        if self._policy.access == ACCESS_PUBLIC:
            return
        await self._let_in(presented(header))

    async def _let_in(self, credential: Presented) -> LiveSession:
        session = await self._identify(credential)
        caller = _caller(session)
        _authorize(caller, self._policy)
        set_caller(caller)
        return session

    async def _identify(self, credential: Presented) -> LiveSession:
        """The session that the credential stands for. Why it does not hold is nobody's business: one reason for all."""
        if credential.kind != CREDENTIAL_SESSION:
            raise Refused(Reason.REASON_CREDENTIAL_INVALID)
        session = await self._sessions.find(credential.token)
        if session is None:
            raise Refused(Reason.REASON_CREDENTIAL_INVALID)
        return session


class StreamAccessInterceptor(AccessInterceptor):
    """For methods that stream: also while the call lasts, which ends when its credential is no longer good."""

    async def intercept(
        self,
        method: Next,
        request_or_iterator: object,
        context: Context,
        method_name: str,
    ) -> bytes | None:
        credential, streams = presented(credential_header(headers())), self._sessions.streams
        doubts = streams.doubts
        session = await self._let_in(credential)
        with streams.hold(credential.token, session, doubts=doubts):
            return await method(request_or_iterator, context)


def _caller(session: LiveSession) -> Caller:
    return Caller(
        account_id=session.account_id,
        credential=CREDENTIAL_SESSION,
        credential_id=session.id,
        authenticated_at=session.authenticated_at,
        organization_id=session.active_organization_id,
        permissions=held(session.role, session.permissions),
        administrator=session.administrator,
        impersonator_id=session.impersonator_id,
    )


def _authorize(caller: Caller, policy: Policy) -> None:
    if not (caller.credential in policy.credentials and _of_kind(caller, policy.access) and _permitted(caller, policy)):
        raise Refused(Reason.REASON_PERMISSION_DENIED)
    if policy.fresh and caller.impersonator_id:
        raise Refused(Reason.REASON_PERMISSION_DENIED)  # who acts as somebody cannot prove to be them
    if policy.fresh and datetime.now(UTC) >= caller.fresh_until:
        raise Refused(Reason.REASON_SIGN_IN_NOT_FRESH)


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
