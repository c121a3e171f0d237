"""Streams that are open: each ends as soon as the token that it began with is no longer good."""

import asyncio
import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final
from uuid import UUID

from accord.errors.v1.errors_pb2 import Reason
from accord_auth.refused import Refused
from accord_auth.tokens import token_hash
from accord_db.database import Database
from accord_db.listen import Listener
from accord_db.queries.sessions import LiveSession, list_good_tokens

_TICK: Final = 0.5  # seconds by which a stream may outlive its session's expiry
# Seconds between two looks at a stream of which nothing was heard: while notices come, for the sake of what was changed
# without one; while they cannot, because nothing else would tell.
_LOOK_AGAIN: Final = 60.0
_LOOK_AGAIN_UNTOLD: Final = 2.0

_log = logging.getLogger(__name__)


class _Stream:
    __slots__ = ("account_id", "ended", "look_at", "session_id", "task", "token_hash")

    def __init__(self, task: "asyncio.Task[Any]", token_hash: bytes, session: LiveSession) -> None:
        self.task = task
        self.token_hash = token_hash
        self.session_id = session.id
        self.account_id = session.account_id
        self.look_at = 0.0  # when to ask about it next, on the clock of `time.monotonic`
        self.ended = False


class Streams:
    """Those of one process. A notice does not end a stream, it makes us ask the database, as a new call would have to:
    the notice may be about the token that the session had before, or about nothing at all.

    To be open is no use of a session: a screen that is watched by nobody would keep it from idling out for ever. What
    its client calls besides, this stream's own beginning included, puts that off, and is found out when it is time.
    """

    def __init__(self, database: Database, listener: Listener) -> None:
        self._database = database
        self._listener = listener
        self._open: set[_Stream] = set()
        self._by_id: dict[UUID, set[_Stream]] = {}  # by the id of the session and of its account
        self._doubts = 0
        self._wake = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    @property
    def doubts(self) -> int:
        """How often something was doubted. Read before the session of a new stream is looked up, and handed to `hold`."""
        return self._doubts

    def doubt(self, session_or_account: UUID) -> None:
        self._ask_about(self._by_id.get(session_or_account, ()))

    def doubt_all(self) -> None:
        self._ask_about(self._open)

    @contextmanager
    def hold(self, token: str, session: LiveSession, *, doubts: int) -> Iterator[None]:
        """The block is the stream. Its task is cancelled, and Refused comes out of it, when the token is not good any
        more; that includes what was revoked while the session was looked up, if anything was doubted since."""
        task = asyncio.current_task()
        assert task is not None
        stream = _Stream(task, token_hash(token), session)
        if doubts == self._doubts:
            self._look_later(stream, min(session.expires_at, session.idle_expires_at))
        else:
            self._wake.set()
        self._add(stream)
        try:
            yield
        except asyncio.CancelledError:
            # Who else cancelled the call, its client or its deadline or the end of the server, is obeyed.
            if not stream.ended or task.cancelling() > 1:
                raise
        finally:
            self._remove(stream)
            if stream.ended:
                task.uncancel()
        if stream.ended:
            raise Refused(Reason.REASON_CREDENTIAL_INVALID)

    def _ask_about(self, streams: Collection[_Stream]) -> None:
        self._doubts += 1
        for stream in streams:
            stream.look_at = 0.0
        if streams:
            self._wake.set()

    def _add(self, stream: _Stream) -> None:
        self._open.add(stream)
        for name in (stream.session_id, stream.account_id):
            self._by_id.setdefault(name, set()).add(stream)
        if self._watching is None or self._watching.done():
            # In a context of its own: the deadline of the call that happens to come first is not that of the others.
            self._watching = asyncio.create_task(self._watch(), name="open streams", context=Context())

    def _remove(self, stream: _Stream) -> None:
        self._open.discard(stream)
        for name in (stream.session_id, stream.account_id):
            self._by_id[name].discard(stream)
            if not self._by_id[name]:
                del self._by_id[name]
        if not self._open:
            self._wake.set()  # so that the watch ends

    async def _watch(self) -> None:
        while self._open:
            self._wake.clear()
            now = monotonic()
            if due := [stream for stream in self._open if stream.look_at <= now and not stream.ended]:
                await self._look(due)
            with suppress(TimeoutError):
                async with asyncio.timeout(_TICK):
                    await self._wake.wait()

    async def _look(self, streams: list[_Stream]) -> None:
        if_unanswered = monotonic() + _LOOK_AGAIN_UNTOLD
        for stream in streams:
            stream.look_at = if_unanswered
        try:
            good = await list_good_tokens(self._database, token_hashes=[stream.token_hash for stream in streams])
        except Exception as error:  # noqa: BLE001 — whatever it was, nobody else would look at these streams
            _log.warning("cannot see whether the sessions of open streams are good: %s", error)
            return
        for stream in streams:
            if stream.token_hash not in good:
                self._end(stream)
            elif stream.look_at == if_unanswered:  # and it was not doubted since we asked
                self._look_later(stream, good[stream.token_hash])

    def _look_later(self, stream: _Stream, end: datetime) -> None:
        left = (end - datetime.now(UTC)).total_seconds()
        stream.look_at = monotonic() + min(left, _LOOK_AGAIN if self._listener.connected else _LOOK_AGAIN_UNTOLD)

    def _end(self, stream: _Stream) -> None:
        if stream in self._open and not stream.ended:
            stream.ended = True
            stream.task.cancel()
