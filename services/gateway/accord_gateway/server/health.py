"""grpc.health.v1: whether this gateway, and each of its services, can serve calls."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import cast

import grpc
import structlog
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse

from accord.policy.v1.policy_pb2 import Access
from accord_gateway.server.method_policies import method_with_policy
from accord_rpc.call import Context
from accord_rpc.pipeline.receive import Handler
from accord_rpc.policy import Method

SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"]
DEADLINES = (("Check", 5), ("List", 5), ("Watch", 3600))  # seconds
OVERALL = ""
MAX_WATCHERS = 250  # no other limit applies to health checks

CHECK_INTERVAL = 1.0  # seconds
CHECK_TIMEOUT = 2.0  # seconds


class Health:
    """All services have the same status, because all of them need the database. `Watch` ends when the gateway stops, so that it
    does not delay the shutdown."""

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
        """Has no effect after `stop`."""
        if serving != self.serving and not self._stopping:
            self._set(HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING)

    def stop(self, *, serving: bool = False) -> None:
        """Ends each `Watch`. `serving`: others serve on the same port, so load balancers must not leave it."""
        self._stopping = True
        self._set(self._status if serving else HealthCheckResponse.NOT_SERVING)

    def _set(self, status: HealthCheckResponse.ServingStatus) -> None:
        self._status = status
        self._changed.set()
        self._changed = asyncio.Event()

    def _status_of(self, service: str) -> HealthCheckResponse.ServingStatus:
        return self._status if service in self._services else HealthCheckResponse.SERVICE_UNKNOWN

    async def Check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        if request.service not in self._services:
            # The gRPC health checking protocol specifies this status; it has no Reason.
            await context.abort(grpc.StatusCode.NOT_FOUND, "Unknown service.")
        return HealthCheckResponse(status=self._status)

    async def List(self, request: HealthListRequest, context: Context) -> HealthListResponse:
        return HealthListResponse(statuses={name: HealthCheckResponse(status=self._status) for name in self._services})

    async def Watch(self, request: HealthCheckRequest, context: Context) -> AsyncIterator[HealthCheckResponse]:
        if self._watchers >= MAX_WATCHERS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Too many Watch calls are open. Use Check.")
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


async def monitor_database(health: Health, ping: Callable[[], Awaitable[object]]) -> None:
    """Sets `health` to NOT_SERVING after two failed pings in a row, and to SERVING after a successful one."""
    log = structlog.get_logger()
    failures, reason = 0, ""
    while True:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                await ping()
            failures = 0
        except Exception as error:  # noqa: BLE001  # each one would also fail calls
            failures += 1
            reason = repr(error)
        if (serving := failures < 2) != health.serving:
            health.set_serving(serving)
            log.info("serving") if serving else log.error("not_serving", reason=reason)
        await asyncio.sleep(CHECK_INTERVAL)


def health_methods(health: Health) -> dict[Method, Handler]:
    """Public, because load balancers have no credentials."""
    check, listing, watch = (
        method_with_policy(SERVICE, name, Access.ACCESS_PUBLIC, deadline_seconds=deadline)
        for name, deadline in DEADLINES
    )
    handlers = {check: health.Check, listing: health.List, watch: health.Watch}
    return cast(dict[Method, Handler], handlers)  # each receives the message type of its method
