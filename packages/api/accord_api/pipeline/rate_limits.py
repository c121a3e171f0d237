"""Holds calls to the limits of a method's policy."""

from typing import Final

from accord.errors.v1.errors_pb2 import Reason
from accord.policy.v1.policy_pb2 import RATE_LIMIT_KEY_CALLER
from accord_api.pipeline.counters import Counters, NotCounted, OwnCounters
from accord_api.pipeline.peer import peer_network
from accord_auth.caller import caller
from accord_auth.gate import Context, Gate
from accord_auth.policy import Method
from accord_auth.refused import Refused

_IN_PROCESS: Final = "async+memory:"


def rate_limiter(storage: str) -> Counters:
    """Counters in the storage that a URL names: `async+memory://`, or `async+redis://host:port/0`. Raises ValueError."""
    if storage.startswith(_IN_PROCESS):
        return OwnCounters()
    from accord_api.pipeline.shared_counters import SharedCounters  # 2 MiB that most installations do not need

    return SharedCounters(storage)


class RateLimitInterceptor(Gate):
    """Every limit of the policy counts every call that reached it; the first one that is used up refuses."""

    def __init__(self, method: Method, counters: Counters) -> None:
        self._limits = [
            (counters.counter(method.path, limit), limit.key == RATE_LIMIT_KEY_CALLER)
            for limit in method.policy.rate_limits
        ]

    async def admit(self, context: Context) -> None:
        for counter, by_caller in self._limits:
            subject = f"account:{caller().account_id}" if by_caller else f"peer:{peer_network(context.peer())}"
            try:
                wait = await counter.hit(subject)
            except NotCounted as error:
                # Fail closed: a limit that cannot be counted may be the one that protects a password.
                raise Refused(Reason.REASON_UNAVAILABLE, retry_after=1) from error
            if wait is not None:
                raise Refused(Reason.REASON_RATE_LIMITED, retry_after=max(0.1, wait), quota=subject)
