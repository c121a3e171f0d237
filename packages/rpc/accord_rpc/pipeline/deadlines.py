"""Ends every call by its deadline: the caller's, or the policy's default, at most the policy's maximum."""

import asyncio
from time import monotonic
from typing import Any, Final

from grpc_interceptor.server import AsyncServerInterceptor

from accord.errors.v1.errors_pb2 import Reason
from accord_rpc.call import Context, call
from accord_rpc.errors import RpcError
from accord_rpc.interceptor import Next
from accord_rpc.policy import Policy

_TICK: Final = 0.05  # seconds by which a call may end late


class _Watch:
    """One call and its deadline."""

    __slots__ = ("expired", "task", "until")

    def __init__(self, task: "asyncio.Task[Any]", until: float) -> None:
        self.task = task
        self.until = until
        self.expired = False


class Clock:
    """Cancels calls at their deadlines. One timer serves all calls: a timer per call, as `asyncio.timeout` sets, takes a
    quarter of the time a call spends in the pipeline."""

    def __init__(self) -> None:
        self._watches: set[_Watch] = set()
        self._loop: asyncio.AbstractEventLoop | None = None  # while there are any: to ask for it takes long

    def watch(self, until: float) -> _Watch:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.call_later(_TICK, self._tick)
        task = asyncio.current_task(self._loop)
        assert task is not None
        watch = _Watch(task, until)
        self._watches.add(watch)
        return watch

    def forget(self, watch: _Watch) -> None:
        self._watches.discard(watch)

    def _tick(self) -> None:
        now = monotonic()
        for watch in self._watches:
            if now >= watch.until and not watch.expired:
                watch.expired = True
                watch.task.cancel()
        if self._watches and self._loop is not None:
            self._loop.call_later(_TICK, self._tick)
        else:
            self._loop = None


class DeadlineInterceptor(AsyncServerInterceptor):
    """The time runs from the headers on, so that a call whose message never arrives ends too."""

    def __init__(self, policy: Policy, clock: Clock) -> None:
        self._default = policy.default_deadline
        self._longest = policy.max_deadline
        self._clock = clock

    async def intercept(
        self,
        method: Next,
        request_or_iterator: object,
        context: Context,
        method_name: str,
    ) -> bytes | None:
        requested = time_left(context)
        until = monotonic() + (self._default if requested is None else min(requested, self._longest))
        call().deadline = until
        watch = self._clock.watch(until)
        try:
            return await method(request_or_iterator, context)
        except asyncio.CancelledError:
            # A cancellation by the client or by the stopping server goes on.
            if watch.expired and watch.task.cancelling() == 1:
                raise RpcError(Reason.REASON_DEADLINE_EXCEEDED) from None
            raise
        finally:
            self._clock.forget(watch)
            if watch.expired:
                watch.task.uncancel()


def time_left(context: Context) -> float | None:
    """Seconds until the deadline that the caller sent; None without one."""
    return context.time_remaining()
