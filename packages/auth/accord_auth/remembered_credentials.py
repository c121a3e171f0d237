"""What this process knows of credentials without asking: shared by all finders, for a notice may change any of them."""

from collections.abc import Awaitable
from uuid import UUID

from accord_auth.credential_cache import TtlCache
from accord_auth.credentials import Authenticated
from accord_auth.streams import Streams
from accord_db.engine.listen import Listener
from accord_db.queries.sessions import REVOKED_CHANNEL


class CredentialCache:
    """One per process. What was found is remembered for some seconds, unless it is changed before: by this process at once,
    by another as soon as the notice of it is here. Nothing remembered is used while notices cannot come."""

    def __init__(self, listener: Listener, *, seconds: float = 5.0, size: int = 10_000) -> None:
        self._listener = listener
        self._cache = TtlCache(seconds=seconds, size=size)
        self.streams = Streams(listener)
        listener.listen(REVOKED_CHANNEL, self._changed_elsewhere)
        listener.on_change(self._line_changed)

    def get(self, token_hash: bytes) -> Authenticated | None:
        return self._cache.get(token_hash) if self._listener.connected else None

    async def ask(self, token_hash: bytes, finding: Awaitable[Authenticated | None]) -> Authenticated | None:
        """What is found, which is remembered unless something was dropped while it was looked up.

        Calls with one token that come together look it up together, too: that is rare (once in some seconds), and to share
        an answer is to share another's deadline, transaction and cancellation."""
        drops = self._cache.drops
        found = await finding
        if found is not None:
            self._cache.put(token_hash, found, drops=drops)
        return found

    def drop(self, id_: UUID) -> None:
        """What is remembered of a credential, an account or an organization. Streams that are open wait for the notice."""
        self._cache.drop(id_)

    def forget(self, id_: UUID) -> None:
        """Drops it, and has streams that are open looked at again."""
        self._cache.drop(id_)
        self.streams.doubt(id_)

    def _changed_elsewhere(self, payload: str) -> None:
        try:
            changed = UUID(payload)
        except ValueError:
            self._line_changed()  # no id: whatever it means, the safe reading is "all of them"
        else:
            self.forget(changed)

    def _line_changed(self) -> None:
        self._cache.clear()
        self.streams.doubt_all()
