"""Decides who may call a method, from the headers alone, before its message is read.

What `protectedProcedure` is elsewhere: behind it, a handler of a method that is not public has a caller.
"""

from datetime import UTC, datetime, timedelta

from accord.errors.v1.errors_pb2 import Reason
from accord.policy.v1.policy_pb2 import (
    ACCESS_PUBLIC,
    ACCESS_SERVICE,
    ACCESS_SIGNED_IN,
    CREDENTIAL_SERVICE_TOKEN,
    CREDENTIAL_SESSION,
    Access,
)
from accord_auth.caller import Caller, set_caller
from accord_auth.credentials import Presented, credential_header, presented
from accord_auth.gate import Context, Gate, headers
from accord_auth.policy import Policy
from accord_auth.refused import Refused
from accord_auth.sessions import LiveSession, Sessions

# How long after signing in a caller may call methods whose policy says `fresh` (ASVS 5.0, 7.5.1).
FRESH_FOR = timedelta(minutes=10)


class AccessInterceptor(Gate):
    """Holds every call of one method to the method's policy."""

    def __init__(self, policy: Policy, sessions: Sessions) -> None:
        self._policy = policy
        self._sessions = sessions

    async def admit(self, context: Context) -> None:
        header = credential_header(headers())
        if self._policy.access == ACCESS_PUBLIC:
            return
        caller = await self._identify(presented(header))
        _authorize(caller, self._policy)
        set_caller(caller)

    async def _identify(self, credential: Presented) -> Caller:
        """Who holds the credential. Why it does not hold is nobody's business: one reason for all."""
        if credential.kind != CREDENTIAL_SESSION:
            raise Refused(Reason.REASON_CREDENTIAL_INVALID)
        session = await self._sessions.find(credential.token)
        if session is None:
            raise Refused(Reason.REASON_CREDENTIAL_INVALID)
        return _caller(session)


def _caller(session: LiveSession) -> Caller:
    return Caller(
        account_id=session.account_id,
        session_id=session.id,
        credential=CREDENTIAL_SESSION,
        fresh_until=session.created_at + FRESH_FOR,
    )


def _authorize(caller: Caller, policy: Policy) -> None:
    if caller.credential not in policy.credentials or not _of_kind(caller, policy.access):
        raise Refused(Reason.REASON_PERMISSION_DENIED)
    if policy.permission and policy.permission not in caller.permissions:
        raise Refused(Reason.REASON_PERMISSION_DENIED)
    if policy.fresh and datetime.now(UTC) >= caller.fresh_until:
        raise Refused(Reason.REASON_SIGN_IN_NOT_FRESH)


def _of_kind(caller: Caller, access: Access.ValueType) -> bool:
    """Whether the access that a method grants includes this caller. What is not granted is denied."""
    if access == ACCESS_SIGNED_IN:
        return True
    if access == ACCESS_SERVICE:
        return caller.credential == CREDENTIAL_SERVICE_TOKEN
    return False  # ACCESS_ADMIN: nobody is one yet
