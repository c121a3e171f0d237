"""What credentials stood for a moment ago, kept so that not every call asks the database."""

from datetime import UTC, datetime
from math import inf
from time import monotonic
from typing import NamedTuple
from uuid import UUID

from accord_auth.credentials import Authenticated


class _Entry(NamedTuple):
    found: Authenticated
    until: float  # on the clock of `time.monotonic`


class TtlCache:
    """By token hash, so that no token stays in memory. Holds at most `size` of what was found, the newest, and none for
    longer than `seconds` or than it may be kept.

    Only credentials that are good are kept. An answer of "there is none" is not: anybody can make well-formed tokens
    without end, and they would push out those of others.
    """

    def __init__(self, *, seconds: float, size: int) -> None:
        self._seconds = seconds
        self._size = size
        self._entries: dict[bytes, _Entry] = {}  # in the order in which they were put
        self._hashes: dict[UUID, set[bytes]] = {}  # by each id that they can be dropped by
        self._drops = 0
        # What was dropped lately, and until when nothing of it is kept: who revokes drops first and commits then, and a
        # lookup in between still finds the credential good.
        self._dropped: dict[UUID, float] = {}

    def get(self, token_hash: bytes) -> Authenticated | None:
        entry = self._entries.get(token_hash)
        return entry.found if entry is not None and monotonic() < entry.until else None

    @property
    def drops(self) -> int:
        """How often something was dropped. Whoever is about to ask the database reads it first, and hands it to `put`."""
        return self._drops

    def put(self, token_hash: bytes, found: Authenticated, *, drops: int) -> None:
        """Keeps it, unless anything was dropped since `drops` was read: that may have been this one, changed
        after the database had answered and before the answer was here."""
        if drops != self._drops or any(map(self._is_dropped, found.ids)):
            return
        self._forget(token_hash)
        self._make_room()
        self._entries[token_hash] = _Entry(found, monotonic() + min(self._seconds, _seconds_left(found)))
        for id_ in found.ids:
            self._hashes.setdefault(id_, set()).add(token_hash)

    def drop(self, id_: UUID) -> None:
        """Drops whatever the id can change: one credential, all of an account, or all of an organization. Keeps none of
        them for a while."""
        self._drops += 1
        self._forget_old_drops()
        self._dropped.pop(id_, None)  # so that they stay in the order of their times
        self._dropped[id_] = monotonic() + self._seconds
        for token_hash in tuple(self._hashes.get(id_, ())):
            self._forget(token_hash)

    def clear(self) -> None:
        self._drops += 1
        self._entries.clear()
        self._hashes.clear()

    def __len__(self) -> int:
        return len(self._entries)

    def _forget_old_drops(self) -> None:
        now = monotonic()
        while self._dropped and self._dropped[oldest := next(iter(self._dropped))] <= now:
            del self._dropped[oldest]

    def _is_dropped(self, id_: UUID) -> bool:
        return monotonic() < self._dropped.get(id_, 0.0)

    def _make_room(self) -> None:
        """The oldest goes if there are too many; all that are too old go, so that a quiet hour leaves nothing behind."""
        now = monotonic()
        while self._entries:
            oldest = next(iter(self._entries))
            if len(self._entries) < self._size and now < self._entries[oldest].until:
                return
            self._forget(oldest)

    def _forget(self, token_hash: bytes) -> None:
        entry = self._entries.pop(token_hash, None)
        if entry is None:
            return
        for id_ in entry.found.ids:
            self._hashes[id_].discard(token_hash)
            if not self._hashes[id_]:
                del self._hashes[id_]


def _seconds_left(found: Authenticated) -> float:
    return inf if found.kept_until is None else (found.kept_until - datetime.now(UTC)).total_seconds()
