"""REST: the routes that methods declare with `google.api.http`, in JSON."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Final, cast

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc.aio import AbortError

from accord_rpc.policy import Method, has_sensitive_field
from accord_rpc.protocols.dispatch import ProtocolHandler
from accord_rpc.protocols.grpc import Chains
from accord_rpc.protocols.json_codec import message_writer
from accord_rpc.protocols.json_codec.writer import to_json
from accord_rpc.protocols.refused import Refused
from accord_rpc.protocols.rest.binding import Binding
from accord_rpc.protocols.rest.calls import RestContext, StreamContext, UnaryContext
from accord_rpc.protocols.rest.errors import no_such_path, no_such_verb, unreadable_path
from accord_rpc.protocols.rest.headers import RequestFields, etag_path
from accord_rpc.protocols.rest.http_rules import HttpRule, http_rules
from accord_rpc.protocols.rest.router import Match, PathError, Router
from accord_rpc.server.exchange import Exchange

_ALL_VERBS: Final = b"DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"


class RestProtocol(ProtocolHandler):
    """Accepts every exchange, so it comes last. Responds to unknown paths too."""

    def __init__(self, chains: Chains, methods: Iterable[Method]) -> None:
        self._chains = chains
        rules = [rule for method in methods for rule in http_rules(_descriptor(method))]
        self._router = Router(rules)
        self._endpoints = {rule: Endpoint(rule) for rule in rules}

    def accepts(self, exchange: Exchange, content_type: bytes) -> bool:
        return True

    async def serve(self, exchange: Exchange) -> None:
        if exchange.target == b"*":  # the server as a whole (RFC 9110, section 7.1)
            return exchange.respond(204, ((b"allow", _ALL_VERBS),))
        try:
            path, _, query = _text(exchange.target).partition("?")
            found = self._find(exchange.method, path)
        except PathError as error:
            return self.refused.record(exchange, unreadable_path(exchange, str(error)))
        if not isinstance(found, Match):
            return self.refused.record(exchange, _refuse(exchange, found))
        endpoint = self._endpoints[found.rule]
        if endpoint.streams and exchange.method == b"HEAD":
            return self.refused.record(exchange, _refuse(exchange, frozenset({found.rule.verb})))
        context = endpoint.context(exchange, found.values, query)
        chain = self._chains.find(found.rule.name)
        try:
            response = await chain(None, context)
        except AbortError:
            response = None
        finally:
            context.close()
        return context.end(response)

    def _find(self, verb: bytes, path: str) -> Match | frozenset[str]:
        return self._router.find("GET" if verb == b"HEAD" else verb.decode("latin-1"), path)


def _refuse(exchange: Exchange, verbs: frozenset[str]) -> Refused | None:
    """`verbs` are the HTTP methods of the path; none if it is unknown."""
    if not verbs:
        return no_such_path(exchange)
    allowed = ", ".join(sorted({*verbs, "OPTIONS"} | ({"HEAD"} if "GET" in verbs else set()))).encode()
    if exchange.method == b"OPTIONS":
        exchange.respond(204, ((b"allow", allowed),))
        return None
    return no_such_verb(exchange, allowed)


class Endpoint:
    """One rule, with what its calls need. Compiled at the first call: an installation uses few of its routes at once."""

    def __init__(self, rule: HttpRule) -> None:
        self.rule = rule
        self.streams = bool(rule.method.server_streaming)

    def context(self, exchange: Exchange, values: Sequence[str], query: str) -> "RestContext":
        kind = StreamContext if self.streams else UnaryContext
        return kind(self, exchange, values, query)

    @cached_property
    def binding(self) -> Binding:
        return Binding(self.rule)

    @cached_property
    def fields(self) -> RequestFields:
        return RequestFields(self.rule)

    @cached_property
    def response(self) -> "ResponseWriter":
        return ResponseWriter(self.rule)

    @cached_property
    def compresses(self) -> bool:
        """The length of a compressed response can reveal a secret in it (BREACH)."""
        return not has_sensitive_field(self.rule.method.output_type)


class ResponseWriter:
    """The JSON and the entity tag of responses."""

    def __init__(self, rule: HttpRule) -> None:
        output = rule.method.output_type
        self._message: type[Message] = GetMessageClass(output)
        self._write = message_writer(output)
        path = etag_path(output)
        self._etag = path.split(".") if path else None
        field = output.fields_by_name[rule.response_body] if rule.response_body else None
        self._part = field.json_name if field is not None else None

    def write(self, binary: bytes) -> tuple[bytes, bytes | None]:
        """The JSON, and the value of `ETag`."""
        message: Any = self._message.FromString(binary)
        document: Any = self._write(message)
        return to_json(document if self._part is None else document.get(self._part)), self._tag(message)

    def _tag(self, message: Any) -> bytes | None:
        if self._etag is None:
            return None
        for name in self._etag:
            message = getattr(message, name)
        return b'"%b"' % message.encode() if message else None


def _text(target: bytes) -> str:
    try:
        return target.decode("ascii")
    except UnicodeDecodeError:
        raise PathError("The path or the query has bytes that are not percent-encoded.") from None


def _descriptor(method: Method) -> MethodDescriptor:
    pool = method.request.DESCRIPTOR.file.pool
    return cast(
        MethodDescriptor, pool.FindMethodByName(f"{method.service}.{method.name}")
    )  # a union of two equal classes
