"""The end of every sign-in: a session, or a token for the second step."""

from typing import NamedTuple

from accord.errors.v1.errors_pb2 import Reason
from accord_api import account_tokens
from accord_auth.second_factors import SecondFactors
from accord_auth.sessions import Sessions
from accord_db.engine.clock import DatabaseClock
from accord_db.engine.database import Transaction
from accord_db.engine.errors import Conflict
from accord_db.queries import accounts
from accord_db.schema import Account, AccountToken, Session
from accord_rpc.call import call
from accord_rpc.errors import RpcError


class SignIn(NamedTuple):
    """Either a session and its token, or the token for the second step; the other is empty."""

    session_token: str
    session: Session | None
    second_step_token: str


class Opened(NamedTuple):
    token: str
    session: Session


class SignIns:
    def __init__(self, sessions: Sessions, second_factors: SecondFactors, clock: DatabaseClock) -> None:
        self._sessions = sessions
        self._second_factors = second_factors
        self._clock = clock

    async def open(self, tx: Transaction, account: Account, *, provider: str | None = None) -> SignIn:
        """For a caller who has proved the first factor of `account`, as it was read then. `provider` is None for a password.

        Raises SIGN_IN_REFUSED if the account is banned or was deleted since, and Conflict if its password hash has changed:
        ending all sessions of an account also prevents one that is being opened.
        """
        now = await accounts.get_account_locked(tx, account_id=account.id)
        if now is None or is_banned(now, self._clock):
            raise RpcError(Reason.REASON_SIGN_IN_REFUSED)
        require_verified_hash(now, account)
        if await self._second_factors.is_enabled(tx, now.id):
            call().note(account_id=now.id, target=now.id)
            kind = account_tokens.SECOND_STEP
            token = await account_tokens.issue(tx, kind, account_id=now.id, email=now.email, provider=provider)
            return SignIn("", None, token)
        token, session = await self._open(tx, now, provider)
        return SignIn(token, session, "")

    async def complete(self, tx: Transaction, waiting: AccountToken) -> Opened:
        """For a caller who has proved the second factor too. Raises TOKEN_INVALID if the token is not valid any more."""
        account = await account_tokens.use(tx, waiting)
        if is_banned(account, self._clock):
            raise account_tokens.invalid_token()
        return await self._open(tx, account, waiting.provider)

    async def _open(self, tx: Transaction, account: Account, provider: str | None) -> Opened:
        token, session = await self._sessions.open(
            tx,
            account.id,
            peer=call().peer,
            user_agent=call().user_agent,
            provider=provider,
            password_change_required=account.password_change_required and provider is None,
        )
        call().note(account_id=account.id, target=session.id)
        return Opened(token, session)


def require_verified_hash(now: Account, verified: Account) -> None:
    """Raises Conflict unless the locked account still has the hash that the password was verified against.

    Another hash may be of the same password, renewed by a concurrent sign-in. The pipeline runs the call again, which
    verifies the password against the present hash.
    """
    if now.password_hash != verified.password_hash:
        raise Conflict("the password hash has changed since it was verified")


def is_banned(account: Account, clock: DatabaseClock) -> bool:
    """Whether the account is banned now. `banned_until` is on the database's clock."""
    if account.banned_at is None:
        return False
    return account.banned_until is None or clock.now() < account.banned_until
