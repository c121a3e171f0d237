"""The shape of the pipeline's stages."""

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from typing import TypeAlias

from grpc_interceptor.server import AsyncServerInterceptor

from accord_rpc.call import Context

# What a stage calls to go on: the request as far as it has come, and the bytes of the answer. None after a stream.
Next: TypeAlias = Callable[[object, Context], Awaitable[bytes | None]]
Headers: TypeAlias = Iterable[tuple[str, str | bytes]]

_headers: ContextVar[Headers] = ContextVar("headers")


def receive_headers(context: Context) -> Headers:
    """For the outermost stage: grpcio makes them anew each time it is asked."""
    received: Headers = context.invocation_metadata() or ()
    _headers.set(received)
    return received


def headers() -> Headers:
    """Those of the call that is being served, repeated ones included."""
    return _headers.get()


class CheckInterceptor(AsyncServerInterceptor):
    """A stage that refuses a call by raising before anything behind it has run."""

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
