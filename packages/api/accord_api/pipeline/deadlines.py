"""Every call ends by its deadline: the caller's own, or the default of the method's policy, never past its maximum."""

import asyncio
from time import monotonic
from typing import cast

from grpc_interceptor.server import AsyncServerInterceptor

from accord.errors.v1.errors_pb2 import Reason
from accord_auth.gate import Context, Next
from accord_auth.policy import Policy
from accord_auth.refused import Refused
from accord_db.deadline import set_deadline


class DeadlineInterceptor(AsyncServerInterceptor):
    """Counts from the headers on, so a message that never arrives is answered like work that takes too long."""

    def __init__(self, policy: Policy) -> None:
        self._default = policy.default_deadline
        self._longest = policy.max_deadline

    async def intercept(
        self,
        method: Next,
        request_or_iterator: object,
        context: Context,
        method_name: str,
    ) -> bytes | None:
        asked = time_left(context)
        seconds = self._default if asked is None else min(asked, self._longest)
        set_deadline(monotonic() + seconds)
        timeout = asyncio.timeout(seconds)
        try:
            async with timeout:
                return await method(request_or_iterator, context)
        except TimeoutError:
            if not timeout.expired():
                raise
            raise Refused(Reason.REASON_DEADLINE_EXCEEDED) from None


def time_left(context: Context) -> float | None:
    """Seconds until the caller's own deadline; None without one, which grpcio's annotation does not admit."""
    return cast(float | None, context.time_remaining())
