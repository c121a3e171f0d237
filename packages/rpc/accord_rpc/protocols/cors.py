"""Cross-origin requests of browsers (fetch.spec.whatwg.org, section 3.3). Only listed origins may make them: none by default."""

from collections.abc import Collection
from typing import Final

from accord_rpc.protocols.dispatch import header
from accord_rpc.server.exchange import Application, Exchange, Headers

_METHODS: Final = b"GET, POST, PUT, PATCH, DELETE"
_REQUEST_HEADERS: Final = ", ".join(
    (
        *("authorization", "content-encoding", "content-type", "idempotency-key", "if-match", "if-none-match"),
        *("connect-protocol-version", "connect-timeout-ms", "connect-content-encoding", "connect-accept-encoding"),
        *(
            "grpc-timeout",
            "grpc-accept-encoding",
            "grpc-encoding",
            "x-grpc-web",
            "x-user-agent",
            "x-api-key",
            "x-request-id",
            "traceparent",
            "tracestate",
        ),
    )
).encode()
_EXPOSED: Final = b"grpc-status, grpc-message, grpc-encoding, grpc-status-details-bin, x-request-id, retry-after, etag"
_MAX_AGE: Final = b"7200"  # seconds; the most that Chromium keeps
_VARY: Final = (b"vary", b"origin")
_PREFLIGHT: Final = (
    (b"access-control-allow-methods", _METHODS),
    (b"access-control-allow-headers", _REQUEST_HEADERS),
    (b"access-control-max-age", _MAX_AGE),
)


class Cors:
    """Wraps an application. `credentials`: whether browsers may send cookies."""

    def __init__(self, application: Application, allowed_origins: Collection[str], *, credentials: bool) -> None:
        self._application = application
        allow: Headers = ((b"access-control-allow-credentials", b"true"),) if credentials else ()
        self._allowed: dict[bytes, Headers] = {
            origin.encode(): ((b"access-control-allow-origin", origin.encode()), *allow, _VARY)
            for origin in allowed_origins
        }

    async def __call__(self, exchange: Exchange) -> None:
        origin = header(exchange, b"origin")
        if not origin and exchange.method == b"POST":  # no browser, and no cache keeps the response
            return await self._application(exchange)
        allowed = self._allowed.get(origin)
        if exchange.method == b"OPTIONS" and header(exchange, b"access-control-request-method"):
            if allowed is None:
                return exchange.respond(403, (_VARY,))
            return exchange.respond(204, (*allowed, *_PREFLIGHT))
        own = (_VARY,) if allowed is None else (*allowed, (b"access-control-expose-headers", _EXPOSED))
        return await self._application(_WithHeaders(exchange, own))


class _WithHeaders(Exchange):
    """An exchange whose response has these headers too."""

    __slots__ = ("_exchange", "_own")

    def __init__(self, exchange: Exchange, own: Headers) -> None:
        self._exchange = exchange
        self._own = own
        self.method, self.target, self.authority = exchange.method, exchange.target, exchange.authority
        self.headers, self.http_version, self.secure = exchange.headers, exchange.http_version, exchange.secure
        self.peer, self.peer_uris = exchange.peer, exchange.peer_uris

    @property
    def request_ended(self) -> bool:
        return self._exchange.request_ended

    async def receive(self) -> bytes | None:
        return await self._exchange.receive()

    def respond(self, status: int, headers: Headers, body: bytes = b"", trailers: Headers = ()) -> None:
        self._exchange.respond(status, (*headers, *self._own), body, trailers)

    def start(self, status: int, headers: Headers) -> None:
        self._exchange.start(status, (*headers, *self._own))

    async def send(self, data: bytes) -> None:
        await self._exchange.send(data)

    def finish(self, data: bytes = b"", trailers: Headers = ()) -> None:
        self._exchange.finish(data, trailers)

    def reset(self) -> None:
        self._exchange.reset()

    @property
    def started(self) -> bool:
        return self._exchange.started
