"""The outermost stage: request id, one log line, metrics, and a status for every call."""

import asyncio
import random
import re
from collections.abc import Mapping
from functools import cache
from time import perf_counter
from typing import Final, NamedTuple, NoReturn, cast

import grpc
import structlog
from grpc.aio import AbortError, InternalError
from grpc_interceptor.server import AsyncServerInterceptor
from prometheus_client import Counter, Histogram

from accord_db.engine.errors import DatabaseError
from accord_db.engine.scope import enter
from accord_rpc.call import Call, Context
from accord_rpc.client_address import FORWARDED_HEADER, ClientAddresses
from accord_rpc.interceptor import Next
from accord_rpc.pipeline.deadlines import time_left
from accord_rpc.protocols.context import ProtocolContext
from accord_rpc.reasons import AnyReason
from accord_rpc.status import STATUS_HEADER, ErrorStatus, status_of

REQUEST_ID_HEADER: Final = "x-request-id"
_USABLE_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")


class _Ending(NamedTuple):
    """What calls that end with one status code need: its name and its counter."""

    code: str
    handled: Counter


class CallMetrics:
    """The metrics of go-grpc-prometheus, under the same names, so that its dashboards work."""

    def __init__(self) -> None:
        self.handled = Counter(
            "grpc_server_handled_total",
            "Calls that ended, by status code.",
            ["service", "method", "code"],
        )
        self.seconds = Histogram(
            "grpc_server_handling_seconds",
            "Seconds from the headers of a call to its status.",
            ["service", "method"],
        )

    @cache  # noqa: B019  # there is one per process
    def of_method(self, service: str, name: str) -> "tuple[Mapping[int, _Ending], Histogram]":
        """By the number of the code: looking up a member of a Python enum takes longer than the count itself."""
        endings = {
            code.value[0]: _Ending(code.name, self.handled.labels(service, name, code.name)) for code in grpc.StatusCode
        }
        return endings, self.seconds.labels(service, name)


@cache
def call_metrics() -> CallMetrics:
    """Cached, because prometheus_client registers each name once per process."""
    return CallMetrics()


class TelemetryInterceptor(AsyncServerInterceptor):
    """Observes one method's calls from the headers to the status. `declared` are the reasons that the method may return."""

    def __init__(
        self,
        service: str,
        name: str,
        declared: frozenset[AnyReason],
        metrics: CallMetrics,
        peers: ClientAddresses,
    ) -> None:
        self._declared = declared
        self._peers = peers
        self._endings, self._seconds = metrics.of_method(service, name)
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("accord.call").bind()

    async def intercept(
        self,
        method: Next,
        request_or_iterator: object,
        context: Context,
        method_name: str,
    ) -> bytes | None:
        started, call = perf_counter(), _begin(context, method_name, self._peers)
        try:
            response = await method(request_or_iterator, context)
            if response is not None and isinstance(context, ProtocolContext):
                response = context.encoded(response)  # here, so that a failure is logged as that of the call
        except (Exception, asyncio.CancelledError, SystemExit) as raised:  # noqa: BLE001 (every call ends with a status)
            await self._end(raised, context, call, started)
        self._record(_code(context), call, started)
        return response

    async def _end(self, raised: BaseException, context: Context, call: Call, started: float) -> NoReturn:
        """Ends a call that failed with a status, unless its client has cancelled it."""
        if isinstance(raised, AbortError):  # grpcio's own services have set the status
            self._record(_code(context), call, started)
            raise raised
        if isinstance(raised, asyncio.CancelledError) and _is_cancelled():
            self._record(_given_up(context), call, started)
            raise raised
        failed = status_of(raised, self._declared)
        self._record(failed.code.value[0], call, started, failed, raised)
        context.set_trailing_metadata(
            (
                (STATUS_HEADER, failed.details),
                (REQUEST_ID_HEADER, call.request_id),
            )
        )
        try:
            await context.abort(failed.code, failed.message)
        except InternalError:  # the client or the connection has gone
            raise asyncio.CancelledError from None

    def _record(
        self,
        code: int,
        call: Call,
        started: float,
        failed: ErrorStatus | None = None,
        raised: BaseException | None = None,
    ) -> None:
        seconds, ending = perf_counter() - started, self._endings[code]
        ending.handled.inc()
        self._seconds.observe(seconds)
        line: dict[str, object] = {
            "request_id": call.request_id,
            "method": call.method,
            "code": ending.code,
            "ms": round(seconds * 1000, 2),
            "peer": call.peer,
        }
        if caller := call.caller:
            line |= caller.log_fields
        if isinstance(raised, DatabaseError):  # its text may quote values from the request; the code does not
            line["sqlstate"] = raised.sqlstate
        if failed is None:
            self._log.info("call", **line)
        elif failed.error_id is None:
            self._log.info("call", **line, reason=failed.name)
        else:
            self._log.error(
                "call",
                **line,
                reason=failed.name,
                error_id=failed.error_id,
                exc_info=raised,
            )


def _begin(context: Context, method: str, peers: ClientAddresses) -> Call:
    sent, user_agent, forwarded = "", "", []
    headers = context.invocation_metadata() or ()  # grpcio builds them at each access
    for name, value in headers:
        if name == REQUEST_ID_HEADER:
            sent = str(value)
        elif name == "user-agent":
            user_agent = str(value)
        elif name == FORWARDED_HEADER:
            forwarded.append(str(value))
    call = Call(
        method=printable(method[:200]),
        request_id=request_id(sent),
        peer=peers.address(context.peer(), forwarded),
        user_agent=printable(user_agent[:256]),
        headers=headers,
    )
    enter(call)
    context.set_trailing_metadata(((REQUEST_ID_HEADER, call.request_id),))
    return call


def request_id(sent: str) -> str:
    """The caller's, or a new one if the caller sent none that is safe to log."""
    return sent if sent and _USABLE_REQUEST_ID.fullmatch(sent) else f"{random.getrandbits(64):016x}"


def printable(text: str) -> str:
    """Escapes unprintable characters: gRPC allows NUL and escape sequences in headers, which rows and terminals must not get."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _code(context: Context) -> int:
    return cast(int | None, context.code()) or 0  # grpcio returns None or a number, other than its annotation


def _is_cancelled() -> bool:
    """Whether this task was cancelled. A CancelledError without that was raised by the handler, and is an error like others."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _given_up(context: Context) -> int:
    left = time_left(context)
    code = grpc.StatusCode.DEADLINE_EXCEEDED if left is not None and left <= 0 else grpc.StatusCode.CANCELLED
    return code.value[0]
