"""grpc.health.v1: whether this gateway, and each service of it, can answer calls just now."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import cast

import grpc
import structlog
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse

from accord.policy.v1.policy_pb2 import Access
from accord_gateway.server.method_policies import method
from accord_rpc.call import Context
from accord_rpc.pipeline.receive import Handler
from accord_rpc.policy import Method

SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"]
LIMITS = (("Check", 5), ("List", 5), ("Watch", 3600))  # seconds
OVERALL = ""
MOST_WATCHERS = 250  # each takes up one of the calls that may run at a time, for as long as it likes

CHECK_EVERY = 1.0  # seconds
CHECK_WITHIN = 2.0  # seconds


class Health:
    """All services have one fate, since all of them need the database. `Watch` ends when the gateway stops, so that
    watchers do not hold up the drain."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = frozenset((OVERALL, SERVICE.full_name, *services))
        self._status: HealthCheckResponse.ServingStatus = HealthCheckResponse.NOT_SERVING
        self._stopping = False
        self._changed = asyncio.Event()
        self._watchers = 0

    @property
    def serving(self) -> bool:
        return bool(self._status == HealthCheckResponse.SERVING)

    def set_serving(self, serving: bool) -> None:
        """Has no effect once the gateway is stopping."""
        if serving != self.serving and not self._stopping:
            self._set(HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING)

    def stop(self) -> None:
        self._stopping = True
        self._set(HealthCheckResponse.NOT_SERVING)

    def _set(self, status: HealthCheckResponse.ServingStatus) -> None:
        self._status = status
        self._changed.set()
        self._changed = asyncio.Event()

    def _status_of(self, service: str) -> HealthCheckResponse.ServingStatus:
        return self._status if service in self._services else HealthCheckResponse.SERVICE_UNKNOWN

    async def Check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        if request.service not in self._services:
            # The health checking protocol, not Accord's contract, says how this is answered.
            await context.abort(grpc.StatusCode.NOT_FOUND, "There is no such service.")
        return HealthCheckResponse(status=self._status)

    async def List(self, request: HealthListRequest, context: Context) -> HealthListResponse:
        return HealthListResponse(statuses={name: HealthCheckResponse(status=self._status) for name in self._services})

    async def Watch(self, request: HealthCheckRequest, context: Context) -> AsyncIterator[HealthCheckResponse]:
        if self._watchers >= MOST_WATCHERS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Too many watch already. Use Check.")
        self._watchers += 1
        try:
            async for status in self._statuses(request.service):
                yield HealthCheckResponse(status=status)
        finally:
            self._watchers -= 1

    async def _statuses(self, service: str) -> AsyncIterator[HealthCheckResponse.ServingStatus]:
        sent = None
        while True:
            changed, status, last = self._changed, self._status_of(service), self._stopping
            if status != sent:
                yield status
                sent = status
            if last:
                return
            await changed.wait()


async def follow(health: Health, reach_database: Callable[[], Awaitable[object]]) -> None:
    """Keeps `health` at whether the database answers. A single failure is forgiven."""
    log = structlog.get_logger()
    failures, reason = 0, ""
    while True:
        try:
            async with asyncio.timeout(CHECK_WITHIN):
                await reach_database()
            failures = 0
        except Exception as error:  # noqa: BLE001  # whatever it is, calls fail of it too
            failures += 1
            reason = repr(error)
        if (serving := failures < 2) != health.serving:
            health.set_serving(serving)
            log.info("serving") if serving else log.error("not_serving", reason=reason)
        await asyncio.sleep(CHECK_EVERY)


def methods(health: Health) -> dict[Method, Handler]:
    """Public: load balancers have no credentials."""
    check, listing, watch = (method(SERVICE, name, Access.ACCESS_PUBLIC, seconds=limit) for name, limit in LIMITS)
    handlers = {check: health.Check, listing: health.List, watch: health.Watch}
    return cast(dict[Method, Handler], handlers)  # each takes the one message that its method's stages hand it
