"""The calls of grpc.aio, which raise the exceptions of `accord_client.errors`."""

from collections.abc import AsyncIterator, Generator
from typing import Any

from grpc.aio import AioRpcError, UnaryUnaryCall

from accord_client.aio.call_details import Attempt
from accord_client.call_failed import CallFailed
from accord_client.failures import failure


@UnaryUnaryCall.register
class UnaryResponseCall:
    """A call with one response."""

    def __init__(self, call: Any, attempt: Attempt) -> None:
        self._call = call
        self._attempt = attempt

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._response().__await__()

    async def _response(self) -> Any:
        try:
            return await self._call
        except AioRpcError as error:
            raise call_failure(error, self._attempt) from error


async def responses(call: Any, attempt: Attempt) -> AsyncIterator[Any]:
    try:
        async for response in call:
            yield response
    except AioRpcError as error:
        raise call_failure(error, attempt) from error


async def prepend(first: Any, others: AsyncIterator[Any]) -> AsyncIterator[Any]:
    yield first
    async for response in others:
        yield response


async def no_responses() -> AsyncIterator[Any]:
    return
    yield


def call_failure(error: AioRpcError, attempt: Attempt) -> CallFailed:
    failed = failure(error, attempt.request_id)
    attempt.drop_rejected_token(failed)
    return failed
