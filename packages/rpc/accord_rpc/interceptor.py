"""The shape of the pipeline's stages."""

from abc import abstractmethod
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from grpc_interceptor.server import AsyncServerInterceptor

from accord_rpc.call import Context

# What a stage calls to go on. Takes the request as the stages so far have made it; returns the response as bytes, None after
# a stream of responses.
Next: TypeAlias = Callable[[object, Context], Awaitable[bytes | None]]


class CheckInterceptor(AsyncServerInterceptor):
    """A stage that can refuse a call, by raising, before the stages inside it run."""

    @abstractmethod
    async def admit(self, context: Context) -> None: ...

    async def intercept(
        self,
        method: Next,
        request_or_iterator: object,
        context: Context,
        method_name: str,
    ) -> bytes | None:
        await self.admit(context)
        return await method(request_or_iterator, context)
