"""One interceptor for each of the four kinds of call, as grpc.aio requires."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from grpc.aio import ClientInterceptor

from accord_client.aio.call_details import Attempts
from accord_client.aio.calls import UnaryResponseCall, no_responses, prepend, responses
from accord_client.call_failed import CallFailed

Continuation = Callable[[Any, Any], Awaitable[Any]]


def interceptors(attempts: Attempts) -> list[ClientInterceptor]:
    return [UnaryUnary(attempts), UnaryStream(attempts), StreamUnary(attempts), StreamStream(attempts)]


class UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts

    async def intercept_unary_unary(self, continuation: Continuation, client_call_details: Any, request: Any) -> Any:
        outgoing = self._attempts.outgoing_call(client_call_details)
        request, attempt = outgoing.request(request), await self._attempts.start(outgoing)
        call = UnaryResponseCall(await continuation(attempt.details, request), attempt)
        try:
            await call
        except CallFailed as failed:
            if attempt.token_was_rejected(failed):
                attempt = await self._attempts.start(outgoing)
                return UnaryResponseCall(await continuation(attempt.details, request), attempt)
        return call


class UnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts

    async def intercept_unary_stream(self, continuation: Continuation, client_call_details: Any, request: Any) -> Any:
        outgoing = self._attempts.outgoing_call(client_call_details)
        attempt = await self._attempts.start(outgoing)
        stream = responses(await continuation(attempt.details, request), attempt)
        if not attempt.is_renewable:
            return stream
        try:
            return prepend(await anext(stream), stream)
        except StopAsyncIteration:
            return no_responses()
        except CallFailed as failed:
            if not attempt.token_was_rejected(failed):
                raise
        attempt = await self._attempts.start(outgoing)
        return responses(await continuation(attempt.details, request), attempt)


class StreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    """A consumed request iterator cannot be repeated, so only the next call has a new token."""

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts

    async def intercept_stream_unary(
        self, continuation: Continuation, client_call_details: Any, request_iterator: Any
    ) -> Any:
        attempt = await self._attempts.start(self._attempts.outgoing_call(client_call_details))
        return UnaryResponseCall(await continuation(attempt.details, request_iterator), attempt)


class StreamStream(grpc.aio.StreamStreamClientInterceptor):
    """Does not repeat a call, like StreamUnary."""

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts

    async def intercept_stream_stream(
        self, continuation: Continuation, client_call_details: Any, request_iterator: Any
    ) -> AsyncIterator[Any]:
        attempt = await self._attempts.start(self._attempts.outgoing_call(client_call_details))
        return responses(await continuation(attempt.details, request_iterator), attempt)
