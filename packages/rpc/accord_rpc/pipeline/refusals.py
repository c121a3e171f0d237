"""Refuses calls before any stage has seen them, because the gateway stops or is full.

This must cost much less than serving a call: under overload there are more refused calls than others. So they have no log line and
no authentication, and the whole status is made at start."""

import asyncio
from collections.abc import Collection
from typing import Final

from accord.errors.v1.errors_pb2 import Reason
from accord_db.engine.database import Database
from accord_rpc.call import Context
from accord_rpc.errors import RpcError
from accord_rpc.pipeline.concurrency import RETRY_AFTER, CallSlots
from accord_rpc.pipeline.telemetry import REQUEST_ID_HEADER, CallMetrics, request_id
from accord_rpc.policy import Method
from accord_rpc.reasons import AnyReason
from accord_rpc.status import STATUS_HEADER, ErrorStatus, status_of

_HEALTH: Final = "/grpc.health.v1.Health/"
_DRAIN_RETRY_AFTER: Final = 1.0  # seconds; another gateway can serve at once, a restarted one soon


class Refusal:
    """The same status for each call."""

    def __init__(
        self, reason: AnyReason, retry_after: float, methods: Collection[Method], metrics: CallMetrics
    ) -> None:
        self.status: ErrorStatus = status_of(RpcError(reason, retry_after=retry_after), frozenset())
        self._counters = {
            method.path: metrics.handled.labels(method.service, method.name, self.status.code.name)
            for method in methods
        }

    def count(self, path: str) -> None:
        if counter := self._counters.get(path):
            counter.inc()

    async def chain(self, request: object, context: Context) -> bytes | None:
        """Takes the place of a method's chain."""
        status, headers = self.status, context.invocation_metadata() or ()
        sent = next((str(value) for name, value in headers if name == REQUEST_ID_HEADER), "")
        context.set_trailing_metadata(((STATUS_HEADER, status.details), (REQUEST_ID_HEADER, request_id(sent))))
        return await context.abort(status.code, status.message)


class Refusals:
    """While `draining`, a call fails with UNAVAILABLE, so that its client retries it elsewhere; while all slots are taken, or many
    calls wait for a database connection, with RATE_LIMITED. Health checks continue: load balancers learn from them that this
    gateway stops, and must not take an overloaded one for a broken one."""

    def __init__(self, slots: CallSlots, database: Database, methods: Collection[Method], metrics: CallMetrics) -> None:
        self._slots = slots
        self._database = database
        self._drained = Refusal(Reason.REASON_UNAVAILABLE, _DRAIN_RETRY_AFTER, methods, metrics)
        self._overloaded = Refusal(Reason.REASON_RATE_LIMITED, RETRY_AFTER, methods, metrics)
        self._room: int | None = None  # for calls that arrive in this turn of the event loop, if any has
        self.draining = False

    def admit(self) -> bool:
        """Whether one more call may begin, for a call whose task has not run yet, and so has neither a slot nor a place in the queue:
        all that arrives in one turn of the event loop must not pass because there was room for one."""
        if self._room is None:
            self._room = self._free()
            asyncio.get_running_loop().call_soon(self._end_turn)
        self._room -= 1
        return self._room >= 0 and not self.draining

    def _end_turn(self) -> None:
        self._room = None

    def _free(self) -> int:
        return min(self._slots.free, self._database.room)

    def find(self, path: str) -> Refusal | None:
        """None if the call is served. Counts the call otherwise."""
        if (self._free() > 0 and not self.draining) or is_health_check(path):
            return None
        return self.refuse(path)

    def refuse(self, path: str) -> Refusal:
        """Counts the call."""
        refusal = self._drained if self.draining else self._overloaded
        refusal.count(path)
        return refusal


def is_health_check(path: str) -> bool:
    return path.startswith(_HEALTH)
