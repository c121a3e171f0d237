"""The four kinds of call. grpc.aio takes an interceptor for one kind alone."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from grpc.aio import ClientInterceptor

from accord_client.aio.call_details import Outbound
from accord_client.aio.calls import Answer, answers, begun, nothing
from accord_client.call_failed import CallFailed

Continuation = Callable[[Any, Any], Awaitable[Any]]


def interceptors(outbound: Outbound) -> list[ClientInterceptor]:
    return [UnaryUnary(outbound), UnaryStream(outbound), StreamUnary(outbound), StreamStream(outbound)]


class UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound

    async def intercept_unary_unary(self, continuation: Continuation, client_call_details: Any, request: Any) -> Any:
        outgoing = self._outbound.outgoing(client_call_details)
        request, sent = outgoing.request(request), await self._outbound.send(outgoing)
        answer = Answer(await continuation(sent.details, request), sent)
        try:
            await answer
        except CallFailed as failed:
            if sent.was_refused(failed):
                sent = await self._outbound.send(outgoing)
                return Answer(await continuation(sent.details, request), sent)
        return answer


class UnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound

    async def intercept_unary_stream(self, continuation: Continuation, client_call_details: Any, request: Any) -> Any:
        outgoing = self._outbound.outgoing(client_call_details)
        sent = await self._outbound.send(outgoing)
        answered = answers(await continuation(sent.details, request), sent)
        if not sent.is_renewed:
            return answered
        try:
            return begun(await anext(answered), answered)
        except StopAsyncIteration:
            return nothing()
        except CallFailed as failed:
            if not sent.was_refused(failed):
                raise
        sent = await self._outbound.send(outgoing)
        return answers(await continuation(sent.details, request), sent)


class StreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    """Requests cannot be had twice: a call that is refused is not repeated, but the next one has another token."""

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound

    async def intercept_stream_unary(
        self, continuation: Continuation, client_call_details: Any, request_iterator: Any
    ) -> Any:
        sent = await self._outbound.send(self._outbound.outgoing(client_call_details))
        return Answer(await continuation(sent.details, request_iterator), sent)


class StreamStream(grpc.aio.StreamStreamClientInterceptor):
    """As with StreamUnary."""

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound

    async def intercept_stream_stream(
        self, continuation: Continuation, client_call_details: Any, request_iterator: Any
    ) -> AsyncIterator[Any]:
        sent = await self._outbound.send(self._outbound.outgoing(client_call_details))
        return answers(await continuation(sent.details, request_iterator), sent)
