"""What a stub answers: grpc.aio's calls, but for the exceptions."""

from collections.abc import AsyncIterator, Generator
from typing import Any

from grpc.aio import AioRpcError, UnaryUnaryCall

from accord_client.aio.call_details import Sent
from accord_client.failures import failure


@UnaryUnaryCall.register
class Answer:
    """Stands for a call of one answer in all but what it raises."""

    def __init__(self, call: Any, sent: Sent) -> None:
        self._call = call
        self._sent = sent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._answer().__await__()

    async def _answer(self) -> Any:
        try:
            return await self._call
        except AioRpcError as error:
            raise self._sent.told(failure(error, self._sent.request_id)) from error


async def answers(call: Any, sent: Sent) -> AsyncIterator[Any]:
    try:
        async for answer in call:
            yield answer
    except AioRpcError as error:
        raise sent.told(failure(error, sent.request_id)) from error


async def begun(first: Any, others: AsyncIterator[Any]) -> AsyncIterator[Any]:
    yield first
    async for answer in others:
        yield answer


async def nothing() -> AsyncIterator[Any]:
    return
    yield
