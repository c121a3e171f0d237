"""Open streams. Each ends as soon as a new call with its credential would be refused."""

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

_TICK: Final = 0.5  # seconds by which a stream may outlive its credential
# Seconds between rechecks of a stream without a notice. While notices arrive, for changes that send none; while they cannot
# arrive, for every change.
_RECHECK_EVERY: Final = 60.0
_RECHECK_EVERY_WITHOUT_NOTICES: Final = 2.0

_log = logging.getLogger(__name__)


Admit: TypeAlias = Callable[[Caller], None]
"""Raises RpcError if the caller is no longer admitted."""


def _admit_all(caller: Caller) -> None:
    """A valid credential is enough."""


class _Stream:
    __slots__ = ("admit", "authenticator", "ids", "recheck_at", "refused", "task", "token")

    def __init__(
        self, task: "asyncio.Task[Any]", authenticator: Authenticator, token: str, ids: tuple[UUID, ...], admit: Admit
    ) -> None:
        self.task = task
        self.authenticator = authenticator
        self.token = token  # held by the headers of the call for as long
        self.ids = ids
        self.admit = admit
        self.recheck_at = 0.0  # on the clock of `time.monotonic`
        self.refused: RpcError | None = None  # the reason for which it is ended


class Streams:
    """The open streams of one process. A notice does not end a stream: its authenticator rechecks the credential, because the
    notice may be about a session's previous token, another permission, or nothing at all.

    An open stream is no use of its credential: it would keep an unattended session from idling out. Other calls of the client,
    such as the one that opened the stream, put that off.
    """

    def __init__(self, listener: Listener, clock: DatabaseClock) -> None:
        self._listener = listener
        self._clock = clock
        self._open: set[_Stream] = set()
        self._by_id: dict[UUID, set[_Stream]] = {}  # by each id that a notice can name
        self._changes = 0
        self._wake = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    @property
    def changes(self) -> int:
        """How many changes there were. Read it before the credential of a new stream is verified, and pass it to `hold`."""
        return self._changes

    def changed(self, id_: UUID) -> None:
        """Rechecks the streams whose credential, account or organization has changed."""
        self._recheck_now(self._by_id.get(id_, ()))

    def all_changed(self) -> None:
        self._recheck_now(self._open)

    @contextmanager
    def hold(
        self, authenticator: Authenticator, token: str, found: Authenticated, *, changes: int, admit: Admit = _admit_all
    ) -> Iterator[None]:
        """The block is the stream. When the token is no longer valid, or `admit` refuses its caller, the block's task is
        cancelled and the block raises RpcError. That includes changes since `changes` was read."""
        task = asyncio.current_task()
        assert task is not None
        stream = _Stream(task, authenticator, token, found.ids, admit)
        if changes == self._changes:
            self._recheck_later(stream, found.valid_until)
        else:
            self._wake.set()
        self._add(stream)
        try:
            yield
        except asyncio.CancelledError:
            # The client, the deadline or the server's shutdown cancelled the call as well.
            if stream.refused is None or task.cancelling() > 1:
                raise
        finally:
            self._remove(stream)
            if stream.refused is not None:
                task.uncancel()
        if stream.refused is not None:
            raise stream.refused

    def _recheck_now(self, streams: Collection[_Stream]) -> None:
        self._changes += 1
        for stream in streams:
            stream.recheck_at = 0.0
        if streams:
            self._wake.set()

    def _add(self, stream: _Stream) -> None:
        self._open.add(stream)
        for id_ in stream.ids:
            self._by_id.setdefault(id_, set()).add(stream)
        if self._watching is None or self._watching.done():
            # In an empty context: the deadline of the first stream's call is not the deadline of the others.
            self._watching = asyncio.create_task(self._watch(), name="open streams", context=Context())

    def _remove(self, stream: _Stream) -> None:
        self._open.discard(stream)
        for id_ in stream.ids:
            self._by_id[id_].discard(stream)
            if not self._by_id[id_]:
                del self._by_id[id_]
        if not self._open:
            self._wake.set()  # ends the watch

    async def _watch(self) -> None:
        while self._open:
            self._wake.clear()
            now = monotonic()
            if due := [stream for stream in self._open if stream.recheck_at <= now and stream.refused is None]:
                await self._recheck(due)
            with suppress(TimeoutError):
                async with asyncio.timeout(_TICK):
                    await self._wake.wait()

    async def _recheck(self, streams: list[_Stream]) -> None:
        for authenticator in {stream.authenticator for stream in streams}:
            await self._recheck_with(authenticator, [each for each in streams if each.authenticator is authenticator])

    async def _recheck_with(self, authenticator: Authenticator, streams: list[_Stream]) -> None:
        if_it_fails = monotonic() + _RECHECK_EVERY_WITHOUT_NOTICES
        for stream in streams:
            stream.recheck_at = if_it_fails
        try:
            valid = await authenticator.recheck([stream.token for stream in streams])
        except Exception as error:  # noqa: BLE001 — any error: the watch must go on, or no stream is rechecked
            _log.warning("cannot recheck the credentials of open streams: %s", error)
            return
        for stream in streams:
            found = valid.get(stream.token)
            if refused := _refused(stream, found):
                self._end(stream, refused)
            elif found and stream.recheck_at == if_it_fails:  # no change since the query
                self._recheck_later(stream, found.valid_until)

    def _recheck_later(self, stream: _Stream, valid_until: datetime | None) -> None:
        left = inf if valid_until is None else self._clock.until(valid_until)
        longest = _RECHECK_EVERY if self._listener.connected else _RECHECK_EVERY_WITHOUT_NOTICES
        stream.recheck_at = monotonic() + min(left, longest)

    def _end(self, stream: _Stream, refused: RpcError) -> None:
        if stream in self._open and stream.refused is None:
            stream.refused = refused
            stream.task.cancel()


def _refused(stream: _Stream, found: Authenticated | None) -> RpcError | None:
    """The error that a new call with the stream's credential would raise."""
    if found is None:
        return RpcError(Reason.REASON_CREDENTIAL_INVALID)
    try:
        stream.admit(found.caller)
    except RpcError as refused:
        return refused
    return None
