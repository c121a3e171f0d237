"""Builds each method's chain of stages, once, at start. A stage that the policy does not require is left out."""

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import grpc
from grpc_interceptor.server import AsyncServerInterceptor
from protovalidate import Validator

from accord.errors.v1.errors_pb2 import Reason
from accord.policy.v1.policy_pb2 import ACCESS_PUBLIC, CREDENTIAL_API_KEY
from accord_db.engine.database import Database
from accord_rpc.call import Context
from accord_rpc.client_address import ClientAddresses
from accord_rpc.errors import RpcError
from accord_rpc.interceptor import Next
from accord_rpc.pipeline.audit import AuditInterceptor
from accord_rpc.pipeline.concurrency import CallSlots, ConcurrencyInterceptor
from accord_rpc.pipeline.counters import Counters
from accord_rpc.pipeline.deadlines import Clock, DeadlineInterceptor
from accord_rpc.pipeline.idempotency import IdempotencyInterceptor
from accord_rpc.pipeline.rate_limits import ApiKeyLimitInterceptor, DurableLimitInterceptor, RateLimitInterceptor
from accord_rpc.pipeline.receive import Handler, ReceiveInterceptor, respond_with
from accord_rpc.pipeline.refusals import Refusals, is_health_check
from accord_rpc.pipeline.retries import RetryInterceptor
from accord_rpc.pipeline.session_cookies import SessionCookieInterceptor
from accord_rpc.pipeline.telemetry import CallMetrics, TelemetryInterceptor
from accord_rpc.policy import Method

AccessStage: TypeAlias = Callable[[Method], AsyncServerInterceptor]
"""Makes the stage that decides who may call a method. The gateway passes it in."""


class Pipeline:
    """Builds the chain of stages of each method, from what all chains share."""

    def __init__(
        self,
        database: Database,
        access: AccessStage,
        counters: Counters,
        validator: Validator,
        metrics: CallMetrics,
        peers: ClientAddresses,
        *,
        max_calls: int,
        cookie_origins: Collection[str] | None = None,
    ) -> None:
        """`cookie_origins` are the origins whose pages may call with a session cookie, besides the server's own. None: sessions are
        not in cookies."""
        self._database = database
        self._access = access
        self._counters = counters
        self._api_key_limit = ApiKeyLimitInterceptor(ApiKeyLimitInterceptor.counter(counters))
        self.validator = validator
        self._metrics = metrics
        self._peers = peers
        self._cookie_origins = cookie_origins
        self._clock = Clock()
        self.slots = CallSlots(max_calls)
        self._unknown = TelemetryInterceptor("unknown", "unknown", frozenset(), metrics, peers)

    def chain(self, method: Method, handler: Handler) -> Next:
        """The handler inside its stages. Takes None and a context; returns the response, or None after a stream of responses."""
        return _chained(self._stages(method), respond_with(method, handler), method.path)

    def refuse(self, path: str) -> Next:
        """For an unknown path: METHOD_UNKNOWN, with a log line, counted under one name."""
        return _chained([self._unknown], _no_such_method, path)

    def refusals(self, methods: Collection[Method]) -> Refusals:
        return Refusals(self.slots, self._database, methods, self._metrics)

    def _telemetry(self, method: Method) -> TelemetryInterceptor:
        return TelemetryInterceptor(method.service, method.name, method.policy.errors, self._metrics, self._peers)

    def _stages(self, method: Method) -> Iterator[AsyncServerInterceptor]:
        """Outermost first."""
        policy = method.policy
        yield self._telemetry(method)
        if self._cookie_origins is not None:
            yield SessionCookieInterceptor(method, self._cookie_origins)
        yield DeadlineInterceptor(policy, self._clock)
        if not is_health_check(method.path):
            yield ConcurrencyInterceptor(self.slots)
        yield self._access(method)
        if CREDENTIAL_API_KEY in policy.credentials and policy.access != ACCESS_PUBLIC:
            yield self._api_key_limit
        yield ReceiveInterceptor(method, self.validator)
        if not all(limit.durable for limit in policy.rate_limits):
            yield RateLimitInterceptor(method, self._counters)
        if any(limit.durable for limit in policy.rate_limits):
            yield DurableLimitInterceptor(method, self._database)
        if not (method.request_streaming or method.response_streaming):
            yield RetryInterceptor()
        if policy.audit:
            yield AuditInterceptor(method, self._database)
        if method.idempotent:
            yield IdempotencyInterceptor(self._database)


class Routes(grpc.GenericRpcHandler):
    """The chains of all methods, for our own protocols by `find`, for a grpcio server as a generic handler. Refuses unknown paths.

    Refuses calls while the gateway drains or is full, too. See `Refusals`."""

    def __init__(self, pipeline: Pipeline, served: Mapping[Method, Handler]) -> None:
        self._pipeline = pipeline
        self.methods: Mapping[str, Method] = {method.path: method for method in served}
        self._chains = {method.path: pipeline.chain(method, handler) for method, handler in served.items()}
        self.refusals = pipeline.refusals(served)

    @property
    def draining(self) -> bool:
        return self.refusals.draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        self.refusals.draining = draining

    def find(self, path: str) -> Next:
        refusal = self.refusals.find(path)
        return refusal.chain if refusal else self._chains.get(path) or self._pipeline.refuse(path)

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        """Every kind of call is registered as one with a stream of requests. grpcio starts those when the headers have arrived, so
        that access is decided before the message is read, and a missing message runs into the deadline."""
        chain, method = _coroutine_function(self.find(details.method)), self.methods.get(details.method)
        if method is not None and method.response_streaming:
            return grpc.stream_stream_rpc_method_handler(chain)
        return grpc.stream_unary_rpc_method_handler(chain)


async def _no_such_method(request: object, context: Context) -> bytes | None:
    raise RpcError(Reason.REASON_METHOD_UNKNOWN)


def _chained(stages: Iterable[AsyncServerInterceptor], innermost: Next, path: str) -> Next:
    chain = innermost
    for stage in reversed(list(stages)):
        chain = _step(stage, chain, path)
    return chain


def _coroutine_function(chain: Next) -> Next:
    """grpcio calls others in a thread."""

    async def serve(request: object, context: Context) -> bytes | None:
        return await chain(request, context)

    return serve


def _step(stage: AsyncServerInterceptor, following: Next, path: str) -> Next:
    def step(request: object, context: Context) -> Awaitable[bytes | None]:
        return stage.intercept(following, request, context, path)  # type: ignore[arg-type]  # it knows grpcio's context only

    return step
