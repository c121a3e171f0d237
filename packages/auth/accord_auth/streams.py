"""Streams that are open: each ends as soon as a call with the credential that it began with would be refused."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context
from datetime import datetime
from math import inf
from time import monotonic
from typing import Any, Final, TypeAlias
from uuid import UUID

from accord.errors.v1.errors_pb2 import Reason
from accord_auth.credentials import Authenticated, Authenticator
from accord_db.engine.clock import DatabaseClock
from accord_db.engine.listen import Listener
from accord_rpc.caller import Caller
from accord_rpc.errors import RpcError

_TICK: Final = 0.5  # seconds by which a stream may outlive its credential's expiry
# Seconds between two looks at a stream of which nothing was heard: while notices come, for the sake of what was changed
# without one; while they cannot, because nothing else would tell.
_LOOK_AGAIN: Final = 60.0
_LOOK_AGAIN_UNTOLD: Final = 2.0

_log = logging.getLogger(__name__)


Admit: TypeAlias = Callable[[Caller], None]
"""Raises Refused if whoever the credential stands for is let in no more."""


def _whoever(caller: Caller) -> None:
    """A credential that is good is enough."""


class _Stream:
    __slots__ = ("admit", "authenticator", "ids", "look_at", "refused", "task", "token")

    def __init__(
        self, task: "asyncio.Task[Any]", authenticator: Authenticator, token: str, ids: tuple[UUID, ...], admit: Admit
    ) -> None:
        self.task = task
        self.authenticator = authenticator
        self.token = token  # which the headers of its call hold as long
        self.ids = ids
        self.admit = admit
        self.look_at = 0.0  # when to ask about it next, on the clock of `time.monotonic`
        self.refused: RpcError | None = None  # why it is ended


class Streams:
    """Those of one process. A notice does not end a stream, it makes us ask the authenticator, as a new call would have to: the
    notice may be about the token that a session had before, about another permission, or about nothing at all.

    To be open is no use of a credential: a screen that is watched by nobody would keep a session from idling out for ever.
    What its client calls besides, this stream's own beginning included, puts that off, and is found out when it is time.
    """

    def __init__(self, listener: Listener, clock: DatabaseClock) -> None:
        self._listener = listener
        self._clock = clock
        self._open: set[_Stream] = set()
        self._by_id: dict[UUID, set[_Stream]] = {}  # by each id that a notice can name
        self._doubts = 0
        self._wake = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    @property
    def doubts(self) -> int:
        """How often something was doubted. Read before the credential of a new stream is looked up, and handed to `hold`."""
        return self._doubts

    def doubt(self, id_: UUID) -> None:
        self._ask_about(self._by_id.get(id_, ()))

    def doubt_all(self) -> None:
        self._ask_about(self._open)

    @contextmanager
    def hold(
        self, authenticator: Authenticator, token: str, found: Authenticated, *, doubts: int, admit: Admit = _whoever
    ) -> Iterator[None]:
        """The block is the stream. Its task is cancelled, and Refused comes out of it, when the token is not good any
        more, or `admit` refuses whoever it stands for; that includes what was changed while it was looked up, if
        anything was doubted since."""
        task = asyncio.current_task()
        assert task is not None
        stream = _Stream(task, authenticator, token, found.ids, admit)
        if doubts == self._doubts:
            self._look_later(stream, found.valid_until)
        else:
            self._wake.set()
        self._add(stream)
        try:
            yield
        except asyncio.CancelledError:
            # Who else cancelled the call, its client or its deadline or the end of the server, is obeyed.
            if stream.refused is None or task.cancelling() > 1:
                raise
        finally:
            self._remove(stream)
            if stream.refused is not None:
                task.uncancel()
        if stream.refused is not None:
            raise stream.refused

    def _ask_about(self, streams: Collection[_Stream]) -> None:
        self._doubts += 1
        for stream in streams:
            stream.look_at = 0.0
        if streams:
            self._wake.set()

    def _add(self, stream: _Stream) -> None:
        self._open.add(stream)
        for id_ in stream.ids:
            self._by_id.setdefault(id_, set()).add(stream)
        if self._watching is None or self._watching.done():
            # In a context of its own: the deadline of the call that happens to come first is not that of the others.
            self._watching = asyncio.create_task(self._watch(), name="open streams", context=Context())

    def _remove(self, stream: _Stream) -> None:
        self._open.discard(stream)
        for id_ in stream.ids:
            self._by_id[id_].discard(stream)
            if not self._by_id[id_]:
                del self._by_id[id_]
        if not self._open:
            self._wake.set()  # so that the watch ends

    async def _watch(self) -> None:
        while self._open:
            self._wake.clear()
            now = monotonic()
            if due := [stream for stream in self._open if stream.look_at <= now and stream.refused is None]:
                await self._look(due)
            with suppress(TimeoutError):
                async with asyncio.timeout(_TICK):
                    await self._wake.wait()

    async def _look(self, streams: list[_Stream]) -> None:
        for authenticator in {stream.authenticator for stream in streams}:
            await self._look_by(authenticator, [stream for stream in streams if stream.authenticator is authenticator])

    async def _look_by(self, authenticator: Authenticator, streams: list[_Stream]) -> None:
        if_unanswered = monotonic() + _LOOK_AGAIN_UNTOLD
        for stream in streams:
            stream.look_at = if_unanswered
        try:
            good = await authenticator.recheck([stream.token for stream in streams])
        except Exception as error:  # noqa: BLE001 — whatever it was, nobody else would look at these streams
            _log.warning("cannot see whether the credentials of open streams are good: %s", error)
            return
        for stream in streams:
            found = good.get(stream.token)
            if refused := _refused(stream, found):
                self._end(stream, refused)
            elif found and stream.look_at == if_unanswered:  # and it was not doubted since we asked
                self._look_later(stream, found.valid_until)

    def _look_later(self, stream: _Stream, valid_until: datetime | None) -> None:
        left = inf if valid_until is None else self._clock.until(valid_until)
        stream.look_at = monotonic() + min(left, _LOOK_AGAIN if self._listener.connected else _LOOK_AGAIN_UNTOLD)

    def _end(self, stream: _Stream, refused: RpcError) -> None:
        if stream in self._open and stream.refused is None:
            stream.refused = refused
            stream.task.cancel()


def _refused(stream: _Stream, found: Authenticated | None) -> RpcError | None:
    """What a call with the stream's credential would be refused with."""
    if found is None:
        return RpcError(Reason.REASON_CREDENTIAL_INVALID)
    try:
        stream.admit(found.caller)
    except RpcError as refused:
        return refused
    return None
