"""Sessions: opened at sign-in, found by their token on every call, refused everywhere once revoked."""

from datetime import timedelta
from uuid import UUID

from accord_auth.session_cache import SessionCache
from accord_auth.tokens import new_session_token, token_hash, well_formed
from accord_db.database import Database
from accord_db.ids import uuid7
from accord_db.listen import Listener
from accord_db.queries.sessions import (
    REVOKED_CHANNEL,
    LiveSession,
    get_session_by_token_hash,
    insert_session,
    revoke_session,
)
from accord_db.schema import Session

__all__ = ["LiveSession", "Sessions"]

# What is kept of a header that callers fill as they like.
_USER_AGENT_LENGTH = 256


class Sessions:
    """One per process. A session found is remembered for `cache_seconds`, unless it is revoked before: by this process
    at once, by another as soon as the notice of it is here. Nothing remembered is used while notices cannot come."""

    def __init__(
        self,
        database: Database,
        listener: Listener,
        *,
        lifetime: timedelta,
        cache_seconds: float = 5.0,
        cache_size: int = 10_000,
    ) -> None:
        self._database = database
        self._listener = listener
        self._lifetime = lifetime
        self._cache = SessionCache(seconds=cache_seconds, size=cache_size)
        listener.listen(REVOKED_CHANNEL, self._revoked_elsewhere)
        listener.on_change(self._cache.clear)

    async def open(
        self,
        account_id: UUID,
        *,
        peer: str | None = None,
        user_agent: str | None = None,
    ) -> tuple[str, Session]:
        """The token, which is told this once and kept nowhere, and the session that it finds."""
        token = new_session_token()
        session = await insert_session(
            self._database,
            session_id=uuid7(),
            account_id=account_id,
            token_hash=token_hash(token),
            lifetime=self._lifetime,
            peer=peer,
            user_agent=user_agent[:_USER_AGENT_LENGTH] if user_agent is not None else None,
        )
        return token, session

    async def find(self, token: str) -> LiveSession | None:
        """None if the token is malformed, unknown, expired or revoked, or its account is gone."""
        key = token_hash(token)
        if session := self._remembered(key):
            return session
        return await self._look_up(key) if well_formed(token) else None

    async def revoke(self, *, session_id: UUID, account_id: UUID) -> None:
        """Nothing happens if the account has no such session, or it is revoked already."""
        try:
            await revoke_session(self._database, session_id=session_id, account_id=account_id)
        finally:
            # Also when we were cancelled or cut off while it was committed.
            self._cache.drop(session_id)

    def _remembered(self, key: bytes) -> LiveSession | None:
        return self._cache.get(key) if self._listener.connected else None

    async def _look_up(self, key: bytes) -> LiveSession | None:
        # Calls with one token that come together ask together, too: that is rare (once in `cache_seconds`), and to
        # share an answer is to share another's deadline, transaction and cancellation.
        drops = self._cache.drops
        session = await get_session_by_token_hash(self._database, token_hash=key)
        if session is not None:
            self._cache.put(key, session, drops=drops)
        return session

    def _revoked_elsewhere(self, payload: str) -> None:
        try:
            self._cache.drop(UUID(payload))
        except ValueError:
            self._cache.clear()  # no id: whatever it means, the safe reading is "all of them"
