"""The Connect protocol (https://connectrpc.com/docs/protocol): a call with one message each way is a plain POST, or a GET if
the method has no side effects; a call that streams sends length-prefixed messages."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from google.rpc.code_pb2 import Code
from google.rpc.status_pb2 import Status
from grpc.aio import AbortError

from accord_rpc.policy import Method
from accord_rpc.protocols.connect.calls import ConnectContext, Endpoint
from accord_rpc.protocols.connect.stream import StreamContext
from accord_rpc.protocols.connect.unary import GetContext, Query, UnaryContext
from accord_rpc.protocols.dispatch import ProtocolHandler, header
from accord_rpc.protocols.grpc import Chains
from accord_rpc.protocols.http_errors import refuse_connect
from accord_rpc.server.exchange import Exchange, Headers

# Content types, and whether each is JSON.
_UNARY: Final[Mapping[bytes, bool]] = {b"application/json": True, b"application/proto": False}
_STREAM: Final[Mapping[bytes, bool]] = {b"application/connect+json": True, b"application/connect+proto": False}
_OWN: Final = frozenset({b"application/proto", *_STREAM})  # no other protocol has them
_UTF_8: Final = (b"charset=utf-8", b'charset="utf-8"')


class ConnectProtocol(ProtocolHandler):
    """Accepts every exchange whose path is that of a method, so it comes after gRPC and gRPC-Web. A request to another path is
    known by its content type or by the version of the protocol, so that a client can read the refusal."""

    def __init__(self, chains: Chains, methods: Mapping[str, Method]) -> None:
        self._chains = chains
        self._endpoints = {path.encode(): Endpoint.of(method) for path, method in methods.items()}

    def accepts(self, exchange: Exchange, content_type: bytes) -> bool:
        if exchange.target.partition(b"?")[0] in self._endpoints or _kind(content_type) in _OWN:
            return True
        return header(exchange, b"connect-protocol-version") != b""

    async def serve(self, exchange: Exchange) -> None:
        path, _, query = exchange.target.partition(b"?")
        context = _context(exchange, self._endpoints.get(path), query)
        if isinstance(context, _Refusal):
            status = Status(code=Code.UNIMPLEMENTED, message=context.message)
            if context.http == 204:
                return exchange.respond(204, context.headers)
            return self.refused.record(exchange, refuse_connect(exchange, context.http, status, *context.headers))
        try:
            response = await self._chains.find(path.decode("latin-1"))(None, context)
        except AbortError:
            response = None
        finally:
            context.close()
        return context.end(response)


class _Refusal(NamedTuple):
    """The response to a request that is no call."""

    http: int
    message: str
    headers: Headers = ()


def _context(exchange: Exchange, endpoint: Endpoint | None, query: bytes) -> ConnectContext | _Refusal:
    if exchange.method == b"POST":
        return _post(exchange, endpoint)
    if endpoint is not None and endpoint.safe and exchange.method in (b"GET", b"HEAD"):
        return _get(exchange, endpoint, query)
    verbs = b"GET, HEAD, OPTIONS, POST" if endpoint is not None and endpoint.safe else b"OPTIONS, POST"
    if exchange.method == b"OPTIONS":
        return _Refusal(204, "", ((b"allow", verbs),))
    message = "The method cannot be called with this HTTP method. The header Allow lists those that it can."
    return _Refusal(405, message, ((b"allow", verbs),))


def _post(exchange: Exchange, endpoint: Endpoint | None) -> ConnectContext | _Refusal:
    kind = _kind(header(exchange, b"content-type"))
    if endpoint is None:
        endpoint = Endpoint.unknown(streams=kind in _STREAM)
    is_json = (_STREAM if endpoint.streams else _UNARY).get(kind)
    if is_json is None:
        return _wrong_kind(endpoint)
    if not endpoint.streams:
        return UnaryContext(endpoint, exchange, is_json=is_json)
    if endpoint.needs_http2 and exchange.http_version < 2:
        return _Refusal(505, "A method with streams in both directions requires HTTP/2.")
    return StreamContext(endpoint, exchange, is_json=is_json)


def _get(exchange: Exchange, endpoint: Endpoint, query: bytes) -> ConnectContext | _Refusal:
    parameters = Query(query)
    is_json = _UNARY.get(b"application/" + parameters.encoding)
    return _wrong_kind(endpoint) if is_json is None else GetContext(endpoint, exchange, parameters, is_json=is_json)


def _wrong_kind(endpoint: Endpoint) -> _Refusal:
    message = "The content type is not supported by the method. The header Accept-Post lists those that are."
    return _Refusal(415, message, ((b"accept-post", b", ".join(_STREAM if endpoint.streams else _UNARY)),))


def _kind(content_type: bytes) -> bytes:
    kind, separator, parameters = content_type.partition(b";")
    if separator and parameters.strip().lower() not in _UTF_8:
        return content_type
    return kind.strip().lower()
