"""The calls of gRPC, which raise the exceptions of `accord_client.errors`."""

from collections.abc import Callable
from typing import Any, TypeVar

import grpc

from accord_client.call_failed import CallFailed
from accord_client.failures import failure

T = TypeVar("T")


@grpc.Call.register
@grpc.Future.register
class InterceptedCall:
    """Delegates to the call of gRPC.

    `retry` starts the call again, or returns None if the failure does not permit that. It is not called after the first
    response.
    """

    def __init__(self, call: Any, request_id: str, retry: Callable[[CallFailed], Any | None]) -> None:
        self._call = call
        self._request_id = request_id
        self._retry: Callable[[CallFailed], Any | None] | None = retry

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __iter__(self) -> "InterceptedCall":
        return self

    def __next__(self) -> Any:
        return self._retried(lambda: next(self._call))

    def result(self, timeout: float | None = None) -> Any:
        return self._retried(lambda: self._call.result(timeout))

    def exception(self, timeout: float | None = None) -> Exception | None:
        try:
            self.result(timeout)
        except (grpc.FutureTimeoutError, grpc.FutureCancelledError):
            raise
        except Exception as raised:  # noqa: BLE001  # the caller receives it
            return raised
        return None

    def add_done_callback(self, fn: Callable[["InterceptedCall"], None]) -> None:
        self._call.add_done_callback(lambda _: fn(self))

    def _retried(self, get: Callable[[], T]) -> T:
        try:
            response = get()
        except grpc.RpcError as error:
            failed = failure(error, self._request_id)
            retry, self._retry = self._retry, None
            call = retry(failed) if retry else None
            if call is None:
                raise failed from error
            self._call = call
            return self._retried(get)
        self._retry = None
        return response
