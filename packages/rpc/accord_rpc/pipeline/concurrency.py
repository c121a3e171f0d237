"""Limits how many calls this process works on at a time."""

from typing import Final

from grpc_interceptor.server import AsyncServerInterceptor

from accord.errors.v1.errors_pb2 import Reason
from accord_rpc.call import Context, call
from accord_rpc.errors import RpcError
from accord_rpc.interceptor import Next

RETRY_AFTER: Final = 1.0  # seconds


class CallSlots:
    """One per process. A call takes a slot when its message has arrived, so that requests without one, which cost their sender
    nothing, cannot keep others out."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.taken = 0

    @property
    def free(self) -> int:
        return self._limit - self.taken


class Slot:
    """The slot of one call."""

    __slots__ = ("_is_taken", "_slots")

    def __init__(self, slots: CallSlots) -> None:
        self._slots = slots
        self._is_taken = False

    def take(self) -> None:
        """Has no effect if it is taken. Raises RATE_LIMITED if all slots are."""
        if self._is_taken:
            return
        if self._slots.free <= 0:
            raise RpcError(Reason.REASON_RATE_LIMITED, retry_after=RETRY_AFTER)
        self._slots.taken += 1
        self._is_taken = True

    def free(self) -> None:
        if self._is_taken:
            self._slots.taken -= 1
            self._is_taken = False


class ConcurrencyInterceptor(AsyncServerInterceptor):
    """Stands outside the stage that decides access, which may wait for the database as a handler does. A call whose message has not
    arrived takes its slot in the stage that reads it."""

    def __init__(self, slots: CallSlots) -> None:
        self._slots = slots

    async def intercept(
        self,
        method: Next,
        request_or_iterator: object,
        context: Context,
        method_name: str,
    ) -> bytes | None:
        call().slot = slot = Slot(self._slots)
        try:
            if getattr(context, "request_has_arrived", False):  # grpcio does not know
                slot.take()
            return await method(request_or_iterator, context)
        finally:
            slot.free()
