"""Sessions that were good a moment ago, kept so that not every call asks the database."""

from datetime import UTC, datetime
from time import monotonic
from typing import NamedTuple
from uuid import UUID

from accord_db.queries.sessions import LiveSession


class _Entry(NamedTuple):
    session: LiveSession
    until: float  # on the clock of `time.monotonic`


class SessionCache:
    """By token hash, so that no token stays in memory. Holds at most `size` sessions, the newest, and none for longer
    than `seconds` or past its expiry.

    Only sessions that are good are kept. An answer of "there is none" is not: anybody can make well-formed tokens
    without end, and they would push out the sessions of others.
    """

    def __init__(self, *, seconds: float, size: int) -> None:
        self._seconds = seconds
        self._size = size
        self._entries: dict[bytes, _Entry] = {}  # in the order in which they were put
        self._hashes: dict[UUID, set[bytes]] = {}  # by the id of the session and of its account
        self._drops = 0

    def get(self, token_hash: bytes) -> LiveSession | None:
        entry = self._entries.get(token_hash)
        return entry.session if entry is not None and monotonic() < entry.until else None

    @property
    def drops(self) -> int:
        """How often something was dropped. Whoever is about to ask the database reads it first, and hands it to `put`."""
        return self._drops

    def put(self, token_hash: bytes, session: LiveSession, *, drops: int) -> None:
        """Keeps the session, unless anything was dropped since `drops` was read: that may have been this one, revoked
        after the database had answered and before the answer was here."""
        if drops != self._drops:
            return
        self._forget(token_hash)
        self._make_room()
        left = (session.expires_at - datetime.now(UTC)).total_seconds()
        self._entries[token_hash] = _Entry(session, monotonic() + min(self._seconds, left))
        for id in (session.id, session.account_id):
            self._hashes.setdefault(id, set()).add(token_hash)

    def drop(self, id: UUID) -> None:
        """Drops one session, or all of an account."""
        self._drops += 1
        for token_hash in tuple(self._hashes.get(id, ())):
            self._forget(token_hash)

    def clear(self) -> None:
        self._drops += 1
        self._entries.clear()
        self._hashes.clear()

    def __len__(self) -> int:
        return len(self._entries)

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
        for id in (entry.session.id, entry.session.account_id):
            self._hashes[id].discard(token_hash)
            if not self._hashes[id]:
                del self._hashes[id]
