"""Limits how many calls this process works on at a time."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final, cast

from google.protobuf.message import Message
from grpc_interceptor.server import AsyncServerInterceptor

from accord.errors.v1.errors_pb2 import Reason
from accord_rpc.call import Context
from accord_rpc.errors import RpcError
from accord_rpc.interceptor import Next

RETRY_AFTER: Final = 1.0  # seconds


def too_many_calls() -> RpcError:
    return RpcError(Reason.REASON_RATE_LIMITED, retry_after=RETRY_AFTER)


class CallSlots:
    """One per process. A call takes a slot when its message has arrived, so that requests without one, which cost their sender
    nothing, cannot keep others out."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.taken = 0

    @property
    def full(self) -> bool:
        return self.taken >= self._limit

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Raises RATE_LIMITED if all slots are taken."""
        if self.full:
            raise too_many_calls()
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


class ConcurrencyInterceptor(AsyncServerInterceptor):
    """Stands inside the stage that reads the message. A stream of requests takes its slot with the first message."""

    def __init__(self, slots: CallSlots, *, request_streaming: bool) -> None:
        self._slots = slots
        self._request_streaming = request_streaming

    async def intercept(
        self,
        method: Next,
        request_or_iterator: object,
        context: Context,
        method_name: str,
    ) -> bytes | None:
        if self._request_streaming:
            requests = cast(AsyncIterator[Message], request_or_iterator)
            first = await anext(requests, None)
            request_or_iterator = _stream(first, requests)
        with self._slots.slot():
            return await method(request_or_iterator, context)


async def _stream(first: Message | None, others: AsyncIterator[Message]) -> AsyncIterator[Message]:
    if first is not None:
        yield first
        async for message in others:
            yield message
