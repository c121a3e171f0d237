"""What a stub answers: gRPC's call, but for the exceptions."""

from collections.abc import Callable
from typing import Any, TypeVar

import grpc

from accord_client.call_failed import CallFailed
from accord_client.failures import failure

A = TypeVar("A")


@grpc.Call.register
@grpc.Future.register
class Answers:
    """Stands for the call in all that is not said here.

    `again` makes the call once more if what it failed with lets it, and None if not. Nothing is asked of it once there was
    an answer.
    """

    def __init__(self, call: Any, request_id: str, again: Callable[[CallFailed], Any | None]) -> None:
        self._call = call
        self._request_id = request_id
        self._again: Callable[[CallFailed], Any | None] | None = again

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __iter__(self) -> "Answers":
        return self

    def __next__(self) -> Any:
        return self._answered(lambda: next(self._call))

    def result(self, timeout: float | None = None) -> Any:
        return self._answered(lambda: self._call.result(timeout))

    def exception(self, timeout: float | None = None) -> Exception | None:
        try:
            self.result(timeout)
        except (grpc.FutureTimeoutError, grpc.FutureCancelledError):
            raise
        except Exception as raised:  # noqa: BLE001  # whatever it is, it was asked for
            return raised
        return None

    def add_done_callback(self, fn: Callable[["Answers"], None]) -> None:
        self._call.add_done_callback(lambda _: fn(self))

    def _answered(self, ask: Callable[[], A]) -> A:
        try:
            answer = ask()
        except grpc.RpcError as error:
            failed = failure(error, self._request_id)
            again, self._again = self._again, None
            call = again(failed) if again else None
            if call is None:
                raise failed from error
            self._call = call
            return self._answered(ask)
        self._again = None
        return answer
