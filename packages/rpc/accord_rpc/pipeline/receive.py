"""What arrives is read, parsed and held to the contract's rules; what is answered is written. All four kinds of call."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeAlias, cast

from google.protobuf.message import DecodeError, Message
from grpc_interceptor.server import AsyncServerInterceptor
from protovalidate import FieldPathElementPb, Validator, Violation

from accord_rpc.call import Context
from accord_rpc.errors import FieldViolation, invalid
from accord_rpc.interceptor import Next
from accord_rpc.pipeline.repeated_limits import has_elements, overfull
from accord_rpc.policy import Method

Handler: TypeAlias = Callable[[object, Context], Awaitable[Message] | AsyncIterator[Message]]


class ReceiveInterceptor(AsyncServerInterceptor):
    """Behind it, a request is a message that keeps the contract, or an iterator of such."""

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
        return await method(self._accept(await context.read()), context)

    async def _stream(self, context: Context) -> AsyncIterator[Message]:
        while isinstance(raw := await context.read(), bytes):  # and then grpc.aio.EOF
            yield self._accept(raw)

    def _accept(self, raw: object) -> Message:
        if not isinstance(raw, bytes):  # grpc.aio.EOF: the caller ended its side without a message
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


def _path(violation: Violation) -> str:
    """`requests[1].title`. The key of a map is the caller's text, and stays with the caller."""
    return ".".join(_step(element) for element in _elements(violation))


def _elements(violation: Violation) -> Iterable[FieldPathElementPb]:
    field = violation.proto.field
    return field.elements if field else ()


def _step(element: FieldPathElementPb) -> str:
    if element.subscript is None:
        return element.field_name
    return f"{element.field_name}[{element.subscript.value if element.subscript.field == 'index' else 'key'}]"


def answering(method: Method, handler: Handler) -> Next:
    """The innermost step: the handler's message as bytes, or each of its stream written as it comes."""
    return _streaming(method.response, handler) if method.response_streaming else _unary(method.response, handler)


def _unary(response: type[Message], handler: Handler) -> Next:
    async def answer(request: object, context: Context) -> bytes:
        return _serialized(response, await cast(Awaitable[Message], handler(request, context)))

    return answer


def _streaming(response: type[Message], handler: Handler) -> Next:
    async def answer(request: object, context: Context) -> None:
        async for message in cast(AsyncIterator[Message], handler(request, context)):
            await context.write(_serialized(response, message))

    return answer


def _serialized(response: type[Message], message: object) -> bytes:
    if not isinstance(message, response):
        raise TypeError(f"the handler answered {type(message).__name__} instead of {response.__name__}")
    return message.SerializeToString()
