"""Sessions: opened at sign-in, verified on every call, refused by every process once they have ended."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from accord.policy.v1.policy_pb2 import CREDENTIAL_SESSION
from accord_auth.credential_cache import CredentialCache
from accord_auth.credentials import Authenticated
from accord_auth.streams import Streams
from accord_auth.tokens import new_session_token, token_hash, well_formed
from accord_db.engine.database import Database, Executor
from accord_db.engine.ids import uuid7
from accord_db.engine.listen import Listener
from accord_db.queries.sessions import (
    LiveSession,
    end_password_change,
    get_session_by_token_hash,
    insert_session,
    list_live_sessions,
    revoke_session,
    revoke_sessions_of_account,
    update_session_token,
    update_session_use,
)
from accord_db.schema import Session
from accord_rpc.caller import Caller
from accord_rpc.permissions import held

__all__ = ["LiveSession", "Sessions"]

# The stored part of a header whose length callers choose.
_USER_AGENT_LENGTH = 256
# A session may idle out too early by this and `cache_seconds`. If it may idle for less than ten minutes, a tenth of that.
_USE_RECORDED_EVERY: Final = timedelta(minutes=1)
IMPERSONATED_FOR: Final = timedelta(hours=1)


class Sessions:
    """One per process. Results are cached for `cache_seconds` (see `CredentialCache`).

    A session ends after `lifetime`, or `idle_lifetime` after its last use. Without `idle_lifetime` it does not idle out."""

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
        self._lifetime = lifetime
        self._idle_lifetime = lifetime if idle_lifetime is None else idle_lifetime
        self._use_recorded_every = min(_USE_RECORDED_EVERY, self._idle_lifetime / 10)
        # Shared with the authenticators of other credentials.
        self.cache = CredentialCache(listener, database.clock, seconds=cache_seconds, size=cache_size)

    @property
    def streams(self) -> Streams:
        return self.cache.streams

    async def open(
        self,
        db: Executor,
        account_id: UUID,
        *,
        peer: str | None = None,
        user_agent: str | None = None,
        authenticated_at: datetime | None = None,
        impersonator_id: UUID | None = None,
        provider: str | None = None,
        password_change_required: bool = False,
    ) -> tuple[str, Session]:
        """Returns the token, which is not stored, and the session.

        `authenticated_at`: when the user authenticated, if not now, as for a device that was approved in another session.
        `impersonator_id`: the administrator who acts as the account, for `IMPERSONATED_FOR`.
        `provider`: the name of the provider that the user signed in with.
        `password_change_required`: the session can only change the password, until `end_password_change`."""
        token = new_session_token()
        lifetime = self._lifetime if impersonator_id is None else min(IMPERSONATED_FOR, self._lifetime)
        session = await insert_session(
            db,
            session_id=uuid7(),
            account_id=account_id,
            token_hash=token_hash(token),
            lifetime=lifetime,
            idle_lifetime=self._idle_lifetime,
            authenticated_at=authenticated_at,
            peer=peer,
            user_agent=user_agent[:_USER_AGENT_LENGTH] if user_agent is not None else None,
            impersonator_id=impersonator_id,
            provider=provider,
            password_change_required=password_change_required,
        )
        return token, session

    async def authenticate(self, token: str) -> Authenticated | None:
        """None if the token is malformed, unknown, expired or revoked, or its account is banned or deleted.

        Records the use of the session, at most once a minute and in a separate transaction: call it before the call's
        transaction begins."""
        key = token_hash(token)
        if found := self.cache.get(key):
            return found
        return await self.cache.store(key, self._look_up(key)) if well_formed(token) else None

    async def recheck(self, tokens: Sequence[str]) -> dict[str, Authenticated]:
        by_hash = {token_hash(token): token for token in tokens}
        live = await list_live_sessions(self._database, token_hashes=list(by_hash))
        return {by_hash[key]: self._found(session) for key, session in live.items()}

    async def renew(
        self, db: Executor, *, session_id: UUID, account_id: UUID, authenticated_at: datetime
    ) -> tuple[str, Session] | None:
        """Replaces the token of a session whose user has authenticated again (ASVS 5.0, 7.2.4). None if the session has ended,
        or was renewed since `authenticated_at`."""
        token = new_session_token()
        try:
            session = await update_session_token(
                db,
                session_id=session_id,
                account_id=account_id,
                authenticated_at=authenticated_at,
                token_hash=token_hash(token),
                idle_lifetime=self._idle_lifetime,
            )
        finally:
            self.cache.drop(session_id)
        return (token, session) if session is not None else None

    async def end_password_change(self, db: Executor, *, session_id: UUID, account_id: UUID) -> None:
        """The user has changed the password: the session can call every method."""
        try:
            await end_password_change(db, session_id=session_id, account_id=account_id)
        finally:
            self.cache.drop(session_id)

    async def revoke(self, db: Executor, *, session_id: UUID, account_id: UUID) -> bool:
        """False if the account has no such session, or it is revoked already."""
        try:
            return await revoke_session(db, session_id=session_id, account_id=account_id) is not None
        finally:
            # Also if the call was cancelled, or its connection lost, during the commit.
            self.cache.drop(session_id)

    async def revoke_all(self, db: Executor, account_id: UUID, *, but: UUID | None = None) -> int:
        """Ends all sessions of the account except `but`, and all in which it impersonates another one. Returns how many of them
        were valid."""
        try:
            return len(await revoke_sessions_of_account(db, account_id=account_id, but=but))
        finally:
            # Includes the session that is kept: another lookup is cheaper than telling them apart.
            self.cache.drop(account_id)

    def forget(self, id_: UUID) -> None:
        """For changes of a credential, an account or an organization: this process looks them up again, for calls and for open
        streams. A notice on `REVOKED_CHANNEL` informs the others."""
        self.cache.forget(id_)

    async def _look_up(self, key: bytes) -> Authenticated | None:
        session = await get_session_by_token_hash(
            self._database, token_hash=key, use_recorded_every=self._use_recorded_every
        )
        if session is None:
            return None
        if session.use_is_due:
            session = await self._record_use(session)
        return self._found(session)

    async def _record_use(self, session: LiveSession) -> LiveSession:
        idle_expires_at = await update_session_use(
            self._database,
            session_id=session.id,
            idle_lifetime=self._idle_lifetime,
            use_recorded_every=self._use_recorded_every,
        )
        return session._replace(idle_expires_at=idle_expires_at or session.idle_expires_at, use_is_due=False)

    def _found(self, session: LiveSession) -> Authenticated:
        caller = Caller(
            account_id=session.account_id,
            credential=CREDENTIAL_SESSION,
            credential_id=session.id,
            authenticated_at=session.authenticated_at,
            organization_id=session.active_organization_id,
            permissions=held(session.role, session.permissions),
            administrator=session.administrator,
            impersonator_id=session.impersonator_id,
            password_change_required=session.password_change_required,
        )
        ids = (session.id, session.account_id, session.active_organization_id, session.impersonator_id)
        valid_until = min(session.expires_at, session.idle_expires_at)
        return Authenticated(caller, tuple(id_ for id_ in ids if id_), valid_until, self._kept_until(session))

    def _kept_until(self, session: LiveSession) -> datetime:
        """Half of the time until the session idles out: a lookup puts that off, and a cached result is not looked up."""
        if session.idle_expires_at >= session.expires_at:
            return session.expires_at
        now = self._database.clock.now()
        return now + (session.idle_expires_at - now) / 2
