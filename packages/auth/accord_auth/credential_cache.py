"""Caches verified credentials, so that most calls need no query to authenticate."""

from collections.abc import Awaitable
from math import inf
from time import monotonic
from typing import NamedTuple
from uuid import UUID

from accord_auth.credentials import Authenticated
from accord_auth.streams import Streams
from accord_db.engine.clock import DatabaseClock
from accord_db.engine.listen import Listener
from accord_db.queries.sessions import REVOKED_CHANNEL


class _Entry(NamedTuple):
    found: Authenticated
    until: float  # on the clock of `time.monotonic`


class CallerCache:
    """Results by token hash, so that no token stays in memory. Holds the newest `size` entries, each for three quarters of
    `seconds` at least, for `seconds` at most, and not past its `kept_until`.

    Caches valid credentials only. Negative results are not cached: an attacker can make well-formed tokens without end,
    and they would evict the entries of real callers.
    """

    def __init__(self, clock: DatabaseClock, *, seconds: float, size: int) -> None:
        self._clock = clock
        self._seconds = seconds
        self._size = size
        self._entries: dict[bytes, _Entry] = {}  # in insertion order
        self._hashes: dict[UUID, set[bytes]] = {}  # token hashes by the ids that drop them
        self._drops = 0
        # Ids dropped recently, and until when their results are not cached. A revocation drops first and commits later: a
        # lookup in between still finds the credential valid.
        self._dropped: dict[UUID, float] = {}

    def get(self, token_hash: bytes) -> Authenticated | None:
        entry = self._entries.get(token_hash)
        return entry.found if entry is not None and monotonic() < entry.until else None

    @property
    def drops(self) -> int:
        """How many drops there were. Read it before the lookup and pass it to `put`."""
        return self._drops

    def put(self, token_hash: bytes, found: Authenticated, *, drops: int) -> None:
        """Stores the result, unless anything was dropped since `drops` was read: the drop may concern this credential,
        changed after the lookup read it."""
        if drops != self._drops or any(map(self._is_dropped, found.ids)):
            return
        self._forget(token_hash)
        self._make_room()
        # Not all at once, when many callers came at once: their lookups would delay all others.
        seconds = self._seconds * (1 - token_hash[0] / 1024)
        self._entries[token_hash] = _Entry(found, monotonic() + min(seconds, self._seconds_left(found)))
        for id_ in found.ids:
            self._hashes.setdefault(id_, set()).add(token_hash)

    def drop(self, id_: UUID) -> None:
        """Drops every result that the id can change: one credential, or all of an account or an organization. Their
        results are not cached again for `seconds`."""
        self._drops += 1
        self._forget_old_drops()
        self._dropped.pop(id_, None)  # keeps the dict ordered by time
        self._dropped[id_] = monotonic() + self._seconds
        for token_hash in tuple(self._hashes.get(id_, ())):
            self._forget(token_hash)

    def clear(self) -> None:
        self._drops += 1
        self._entries.clear()
        self._hashes.clear()

    def __len__(self) -> int:
        return len(self._entries)

    def _seconds_left(self, found: Authenticated) -> float:
        return inf if found.kept_until is None else self._clock.until(found.kept_until)

    def _forget_old_drops(self) -> None:
        now = monotonic()
        while self._dropped and self._dropped[oldest := next(iter(self._dropped))] <= now:
            del self._dropped[oldest]

    def _is_dropped(self, id_: UUID) -> bool:
        return monotonic() < self._dropped.get(id_, 0.0)

    def _make_room(self) -> None:
        """Removes expired entries, and the oldest one if the cache is full."""
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


class CredentialCache:
    """One per process, shared by all authenticators. A change in this process drops entries at once, a change in another
    process as soon as its notice arrives. While notices cannot arrive, cached results are not used."""

    def __init__(self, listener: Listener, clock: DatabaseClock, *, seconds: float = 5.0, size: int = 10_000) -> None:
        self._listener = listener
        self._callers = CallerCache(clock, seconds=seconds, size=size)
        self.streams = Streams(listener, clock)
        listener.listen(REVOKED_CHANNEL, self._changed_elsewhere)
        listener.on_change(self._connection_changed)

    def get(self, token_hash: bytes) -> Authenticated | None:
        return self._callers.get(token_hash) if self._listener.connected else None

    async def store(self, token_hash: bytes, lookup: Awaitable[Authenticated | None]) -> Authenticated | None:
        """Awaits the lookup and caches its result, unless something was dropped meanwhile.

        Concurrent calls with one token each run their own lookup: that is rare (once in some seconds), and a shared lookup
        would share one call's deadline, transaction and cancellation."""
        drops = self._callers.drops
        found = await lookup
        if found is not None:
            self._callers.put(token_hash, found, drops=drops)
        return found

    def drop(self, id_: UUID) -> None:
        """Drops cached results of a credential, an account or an organization. Open streams wait for the notice."""
        self._callers.drop(id_)

    def forget(self, id_: UUID) -> None:
        """Drops cached results and rechecks open streams."""
        self._callers.drop(id_)
        self.streams.changed(id_)

    def _changed_elsewhere(self, payload: str) -> None:
        try:
            changed = UUID(payload)
        except ValueError:
            self._connection_changed()  # not an id: treat it as a change of everything
        else:
            self.forget(changed)

    def _connection_changed(self) -> None:
        self._callers.clear()
        self.streams.all_changed()
