"""Reads, parses and validates requests, and writes responses, for all four kinds of call."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeAlias, cast

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_interceptor.server import AsyncServerInterceptor
from protovalidate import FieldPathElementPb, Validator, Violation

from accord_rpc.call import Context, call
from accord_rpc.errors import FieldViolation, invalid
from accord_rpc.interceptor import Next
from accord_rpc.pipeline.repeated_limits import has_elements, overfull
from accord_rpc.policy import Method
from accord_rpc.protocols.context import ProtocolContext
from accord_rpc.protocols.framing import INCOMPLETE, FramingError

Handler: TypeAlias = Callable[[object, Context], Awaitable[Message] | AsyncIterator[Message]]


class ReceiveInterceptor(AsyncServerInterceptor):
    """Stages inside it get a valid message, or an iterator of valid messages. Raises INVALID_MESSAGE with every violation."""

    def __init__(self, method: Method, validator: Validator) -> None:
        self._message = method.request
        self._streaming = method.request_streaming
        self._validator = validator
        self._has_elements = has_elements(method.request)

    async def intercept(
        self,
        method: Next,
        request_or_iterator: object,
        context: Context,
        method_name: str,
    ) -> bytes | None:
        if self._streaming:
            return await method(self._stream(context), context)
        raw = await _read_only_message(context)
        _take_slot()
        return await method(self._accept(raw), context)

    async def _stream(self, context: Context) -> AsyncIterator[Message]:
        while isinstance(raw := await context.read(), bytes):  # grpc.aio.EOF at the end
            _take_slot()
            yield self._accept(raw)

    def _accept(self, raw: object) -> Message:
        if not isinstance(raw, bytes):  # grpc.aio.EOF: the caller sent no message
            raise invalid(FieldViolation("", "the call carried no message"))
        try:
            message = self._message.FromString(raw)
        except DecodeError:
            raise invalid(FieldViolation("", "the bytes are not a message of this method")) from None
        if self._has_elements and (too_many := list(overfull(message))):
            raise invalid(*too_many)
        if violations := self._validator.collect_violations(message):
            raise invalid(*(FieldViolation(_path(violation), violation.proto.message) for violation in violations))
        return message


async def _read_only_message(context: Context) -> object:
    """Waits for the end of the request, as grpc-go and grpc-java do. A second message is a cardinality violation
    (grpc/doc/statuscodes.md): the client has sent data that no one would process."""
    raw = await context.read()
    if not isinstance(raw, bytes):
        return raw
    ours = context if isinstance(context, ProtocolContext) else None
    if ours is not None and ours.request_is_read:
        return raw
    try:
        with INCOMPLETE.holding(0 if ours is not None and ours.request_has_arrived else len(raw)):
            more = await context.read()
    except FramingError as error:
        await context.abort(error.code, error.message)
    if isinstance(more, bytes):
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "The method takes one message, and the call has more.")
    return raw


def _take_slot() -> None:
    """Unless the call has one, or needs none."""
    if slot := call().slot:
        slot.take()


def _path(violation: Violation) -> str:
    """`requests[1].title`. Keys of maps are replaced by `key`: they are text from the request."""
    return ".".join(_step(element) for element in _elements(violation))


def _elements(violation: Violation) -> Iterable[FieldPathElementPb]:
    field = violation.proto.field
    return field.elements if field else ()


def _step(element: FieldPathElementPb) -> str:
    if element.subscript is None:
        return element.field_name
    return f"{element.field_name}[{element.subscript.value if element.subscript.field == 'index' else 'key'}]"


def respond_with(method: Method, handler: Handler) -> Next:
    """The innermost step: runs the handler and serializes its message, or writes each message of its stream."""
    return _streaming(method.response, handler) if method.response_streaming else _unary(method.response, handler)


def _unary(response: type[Message], handler: Handler) -> Next:
    async def respond(request: object, context: Context) -> bytes:
        return _serialized(response, await cast(Awaitable[Message], handler(request, context)))

    return respond


def _streaming(response: type[Message], handler: Handler) -> Next:
    async def respond(request: object, context: Context) -> None:
        async for message in cast(AsyncIterator[Message], handler(request, context)):
            await context.write(_serialized(response, message))

    return respond


def _serialized(response: type[Message], message: object) -> bytes:
    if not isinstance(message, response):
        raise TypeError(f"the handler returned {type(message).__name__} instead of {response.__name__}")
    return message.SerializeToString()
