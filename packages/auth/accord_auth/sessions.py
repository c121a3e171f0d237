"""Sessions: opened at sign-in, found by their token on every call, refused everywhere once revoked."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from accord_auth.session_cache import SessionCache
from accord_auth.streams import Streams
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
    revoke_sessions_of_account,
    update_session_token,
    update_session_use,
)
from accord_db.schema import Session

__all__ = ["LiveSession", "Sessions"]

# What is kept of a header that callers fill as they like.
_USER_AGENT_LENGTH = 256
# A session that is used is written to so often at most. It may idle out too early by this and `cache_seconds`, which
# days do not notice; where a session may idle for less, this is a tenth of it.
_USE_WRITTEN_AFTER: Final = timedelta(minutes=1)


class Sessions:
    """One per process. A session found is remembered for `cache_seconds`, unless it is revoked before: by this process
    at once, by another as soon as the notice of it is here. Nothing remembered is used while notices cannot come.

    A session lasts for `lifetime`, and for `idle_lifetime` after its last use if that ends before; without
    `idle_lifetime` it lasts unused as long as used."""

    def __init__(
        self,
        database: Database,
        listener: Listener,
        *,
        lifetime: timedelta,
        idle_lifetime: timedelta | None = None,
        cache_seconds: float = 5.0,
        cache_size: int = 10_000,
    ) -> None:
        self._database = database
        self._listener = listener
        self._lifetime = lifetime
        self._idle_lifetime = lifetime if idle_lifetime is None else idle_lifetime
        self._use_written_after = min(_USE_WRITTEN_AFTER, self._idle_lifetime / 10)
        self._cache = SessionCache(seconds=cache_seconds, size=cache_size)
        self.streams = Streams(database, listener)
        listener.listen(REVOKED_CHANNEL, self._revoked_elsewhere)
        listener.on_change(self._line_changed)

    async def open(
        self,
        account_id: UUID,
        *,
        peer: str | None = None,
        user_agent: str | None = None,
        authenticated_at: datetime | None = None,
    ) -> tuple[str, Session]:
        """The token, which is told this once and kept nowhere, and the session that it finds.

        `authenticated_at` is for whoever has not authenticated now, but was let in by somebody who had then."""
        token = new_session_token()
        session = await insert_session(
            self._database,
            session_id=uuid7(),
            account_id=account_id,
            token_hash=token_hash(token),
            lifetime=self._lifetime,
            idle_lifetime=self._idle_lifetime,
            authenticated_at=authenticated_at,
            peer=peer,
            user_agent=user_agent[:_USER_AGENT_LENGTH] if user_agent is not None else None,
        )
        return token, session

    async def find(self, token: str) -> LiveSession | None:
        """None if the token is malformed, unknown, expired or revoked, or its account is banned or gone.

        What is found is used: once a minute that is written down, in a transaction of its own. So it is to be asked
        before any transaction of the call has begun."""
        key = token_hash(token)
        if session := self._remembered(key):
            return session
        return await self._look_up(key) if well_formed(token) else None

    async def renew(
        self, *, session_id: UUID, account_id: UUID, authenticated_at: datetime
    ) -> tuple[str, Session] | None:
        """For whoever has authenticated anew: the session with another token, its only one from then on (ASVS 5.0,
        7.2.4). None if it is over, or was renewed since `authenticated_at`."""
        token = new_session_token()
        try:
            session = await update_session_token(
                self._database,
                session_id=session_id,
                account_id=account_id,
                authenticated_at=authenticated_at,
                token_hash=token_hash(token),
                idle_lifetime=self._idle_lifetime,
            )
        finally:
            self._cache.drop(session_id)
        return (token, session) if session is not None else None

    async def revoke(self, *, session_id: UUID, account_id: UUID) -> bool:
        """False, and nothing happens, if the account has no such session, or it is revoked already."""
        try:
            return await revoke_session(self._database, session_id=session_id, account_id=account_id) is not None
        finally:
            # Also when we were cancelled or cut off while it was committed.
            self._cache.drop(session_id)

    async def revoke_all(self, account_id: UUID, *, but: UUID | None = None) -> int:
        """Ends all sessions of the account, but one if it is named, in the transaction that is open; how many of them
        were still good."""
        try:
            return len(await revoke_sessions_of_account(self._database, account_id=account_id, but=but))
        finally:
            # The one that is kept is dropped too, and looked up again: that is cheaper than to know which is which.
            self._cache.drop(account_id)

    def _remembered(self, key: bytes) -> LiveSession | None:
        return self._cache.get(key) if self._listener.connected else None

    async def _look_up(self, key: bytes) -> LiveSession | None:
        # Calls with one token that come together ask together, too: that is rare (once in `cache_seconds`), and to
        # share an answer is to share another's deadline, transaction and cancellation.
        drops = self._cache.drops
        session = await get_session_by_token_hash(
            self._database, token_hash=key, use_written_after=self._use_written_after
        )
        if session is None:
            return None
        if session.use_is_due:
            session = await self._write_use(session)
        self._cache.put(key, session, drops=drops)
        return session

    async def _write_use(self, session: LiveSession) -> LiveSession:
        idle_expires_at = await update_session_use(
            self._database,
            session_id=session.id,
            idle_lifetime=self._idle_lifetime,
            use_written_after=self._use_written_after,
        )
        return session._replace(idle_expires_at=idle_expires_at or session.idle_expires_at, use_is_due=False)

    def _revoked_elsewhere(self, payload: str) -> None:
        try:
            revoked = UUID(payload)
        except ValueError:
            self._line_changed()  # no id: whatever it means, the safe reading is "all of them"
        else:
            self._cache.drop(revoked)
            self.streams.doubt(revoked)

    def _line_changed(self) -> None:
        self._cache.clear()
        self.streams.doubt_all()
