"""The outermost stage: a call gets its request id, its one log line, its metrics, and always a definite answer."""

import asyncio
import random
import re
from functools import cache
from time import perf_counter
from typing import Final, NamedTuple, NoReturn, cast

import grpc
import structlog
from grpc.aio import AbortError, InternalError
from grpc_interceptor.server import AsyncServerInterceptor
from prometheus_client import Counter, Histogram

from accord.errors.v1.errors_pb2 import Reason
from accord_db.engine.errors import DatabaseError
from accord_db.engine.scope import enter
from accord_rpc.call import Call, Context
from accord_rpc.caller import Caller
from accord_rpc.client_address import FORWARDED_HEADER, ClientAddresses
from accord_rpc.interceptor import Next
from accord_rpc.pipeline.deadlines import time_left
from accord_rpc.status import STATUS_HEADER, ErrorStatus, failure

REQUEST_ID_HEADER: Final = "x-request-id"
_USABLE_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")


class CallMetrics:
    """What go-grpc-prometheus counts, under the same names, so that its dashboards fit."""

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


@cache
def call_metrics() -> CallMetrics:
    """Those of this process: prometheus_client has one registry, and takes each name once."""
    return CallMetrics()


class _Ending(NamedTuple):
    """What is kept ready for the calls that end with one of the status codes."""

    code: str
    handled: Counter


class TelemetryInterceptor(AsyncServerInterceptor):
    """Sees one method's calls from their headers to their status. `declared` are the reasons the method may answer."""

    def __init__(
        self,
        service: str,
        name: str,
        declared: frozenset[Reason.ValueType],
        metrics: CallMetrics,
        peers: ClientAddresses,
    ) -> None:
        self._declared = declared
        self._peers = peers
        # By number, since Python's enumerations take longer to look up than the counting takes.
        self._endings = {
            code.value[0]: _Ending(code.name, metrics.handled.labels(service, name, code.name))
            for code in grpc.StatusCode
        }
        self._seconds = metrics.seconds.labels(service, name)
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
        except (Exception, asyncio.CancelledError, SystemExit) as raised:  # noqa: BLE001 (whatever it is, the caller gets an answer)
            await self._end(raised, context, call, started)
        self._record(_code(context), call, started)
        return response

    async def _end(self, raised: BaseException, context: Context, call: Call, started: float) -> NoReturn:
        """Answers a call that did not succeed. Only one that its client gave up ends without a status of ours."""
        if isinstance(raised, AbortError):  # grpcio's own services have answered already
            self._record(_code(context), call, started)
            raise raised
        if isinstance(raised, asyncio.CancelledError) and _is_cancelled():
            self._record(_given_up(context), call, started)
            raise raised
        failed = failure(raised, self._declared)
        self._record(failed.code.value[0], call, started, failed, raised)
        trailers = (
            (STATUS_HEADER, failed.details),
            (REQUEST_ID_HEADER, call.request_id),
        )
        try:
            await context.abort(failed.code, failed.message, trailers)
        except InternalError:  # its caller, or the connection, was gone first
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
            line |= _who(caller)
        if isinstance(raised, DatabaseError):  # its text may quote what was sent, its code does not
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


def _who(caller: Caller) -> dict[str, object]:
    """Whose call it is, for which organization, and who acts for them."""
    line: dict[str, object] = {"account_id": str(caller.account_id)}
    # Written out for speed: it is done for each call, and most have none of them.
    if caller.organization_id is not None:
        line["organization_id"] = str(caller.organization_id)
    if caller.impersonator_id is not None:
        line["impersonator_id"] = str(caller.impersonator_id)
    if caller.service_account_id is not None:
        line["service_account_id"] = str(caller.service_account_id)
    return line


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
    request_id = sent if sent and _USABLE_REQUEST_ID.fullmatch(sent) else _new_request_id()
    call = Call(
        method=_plain(method[:200]),
        request_id=request_id,
        peer=peers.address(context.peer(), forwarded),
        user_agent=_plain(user_agent[:256]),
        headers=headers,
    )
    enter(call)
    context.set_trailing_metadata(((REQUEST_ID_HEADER, request_id),))
    return call


def _new_request_id() -> str:
    return f"{random.getrandbits(64):016x}"


def _plain(text: str) -> str:
    """As it can be written into a row or to a terminal: gRPC lets callers put NUL and escapes into any header."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _code(context: Context) -> int:
    return cast(int | None, context.code()) or 0  # None or a number in grpcio, whatever its annotation says


def _is_cancelled() -> bool:
    """Whether this task was told to stop. A CancelledError without that is a handler's own, and a fault like any other."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _given_up(context: Context) -> int:
    left = time_left(context)
    code = grpc.StatusCode.DEADLINE_EXCEEDED if left is not None and left <= 0 else grpc.StatusCode.CANCELLED
    return code.value[0]
