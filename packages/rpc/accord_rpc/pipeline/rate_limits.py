"""Applies the rate limits of a method's policy."""

from typing import Final
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from grpc_interceptor.server import AsyncServerInterceptor

from accord.errors.v1.errors_pb2 import Reason
from accord.policy.v1.policy_pb2 import RATE_LIMIT_KEY_CALLER, RateLimit
from accord_db.engine.database import Database
from accord_db.engine.folding import fold_email
from accord_rpc.call import Context, call
from accord_rpc.caller import caller
from accord_rpc.errors import RpcError
from accord_rpc.interceptor import CheckInterceptor, Next
from accord_rpc.pipeline.counters import Counter, Counters, LocalCounters, NotCounted
from accord_rpc.pipeline.durable_limits import DurableCounts, DurableLimit, Subject, exceeded, subject
from accord_rpc.policy import Method
from accord_rpc.status import status_of

_IN_PROCESS: Final = "async+memory:"


def rate_limiter(storage: str) -> Counters:
    """The counters in the storage of this URL: `async+memory://` or `async+redis://host:port/0`. Raises ValueError."""
    if storage.startswith(_IN_PROCESS):
        return LocalCounters()
    from accord_rpc.pipeline.shared_counters import SharedCounters  # 2 MiB that most installations do not need

    return SharedCounters(storage)


async def limit_account(account_id: UUID) -> None:
    """Counts this call against the limits by account, for a handler that finds the account by a token in the request.

    Call it once the account is known, before anything is verified, and outside of a transaction: a roll-back would undo
    the count. Raises RATE_LIMITED.
    """
    counts = call().durable_counts
    if counts is None:
        raise RuntimeError("limit_account() was called in a method without a durable limit")
    await counts.count_account(account_id)


class RateLimitInterceptor(CheckInterceptor):
    """The limits that are not durable. Raises RATE_LIMITED for the first that is used up."""

    def __init__(self, method: Method, counters: Counters) -> None:
        self._limits = [
            (counters.counter(method.path, limit), limit.key)
            for limit in method.policy.rate_limits
            if not limit.durable
        ]

    async def admit(self, context: Context) -> None:
        for counter, key in self._limits:
            await _count(counter, subject(key))


class ApiKeyLimitInterceptor(CheckInterceptor):
    """The calls per minute of an API key, over all methods. All methods share the `counter`."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter

    @staticmethod
    def counter(counters: Counters) -> Counter:
        return counters.counter("api keys", RateLimit(count=1, window=Duration(seconds=60)))

    async def admit(self, context: Context) -> None:
        if (most := caller().calls_per_minute) is not None:
            await _count(self._counter, subject(RATE_LIMIT_KEY_CALLER), most)


async def _count(counter: Counter, counted: Subject, most: int | None = None) -> None:
    try:
        wait = await counter.hit(counted.counted, most)
    except NotCounted as error:
        # Fail closed: a limit that cannot be counted may be the one that protects a password.
        raise RpcError(Reason.REASON_UNAVAILABLE, retry_after=1) from error
    if wait is not None:
        raise exceeded(counted, wait)


class DurableLimitInterceptor(AsyncServerInterceptor):
    """The durable limits. They are counted before the handler's transaction and apart from it, so that no roll-back undoes
    the count, and once, even if the handler runs again after a conflict."""

    def __init__(self, method: Method, database: Database) -> None:
        self._database = database
        self._declared = method.policy.errors
        self._field = method.account_field
        limits = [DurableLimit(method.path, limit) for limit in method.policy.rate_limits if limit.durable]
        self._at_account = [limit for limit in limits if limit.by_account and self._field is None]
        self._at_once = [limit for limit in limits if limit not in self._at_account]

    async def intercept(
        self,
        method: Next,
        request_or_iterator: object,
        context: Context,
        method_name: str,
    ) -> bytes | None:
        counts = DurableCounts(self._database, self._at_account)
        if self._at_once:
            await counts.count(self._at_once, self._account(request_or_iterator))
        call().durable_counts = counts
        try:
            response = await method(request_or_iterator, context)
        except Exception as raised:
            # Without the database the caller has learned nothing. Every other error counts, internal ones too: an error that
            # only a wrong guess can cause would distinguish it from a right one.
            if status_of(raised, self._declared).reason == Reason.REASON_UNAVAILABLE:
                await counts.take_back()
            raise
        if not counts.is_complete:
            raise RuntimeError(f"the handler of {method_name} did not call limit_account()")
        await counts.take_back()
        return response

    def _account(self, request: object) -> str:
        """Folded as the lookup of the account folds it."""
        return fold_email(getattr(request, self._field)) if self._field else ""
