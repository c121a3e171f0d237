"""Single-use tokens of an account: they prove that its mail was read, or that the first step of a sign-in succeeded."""

from datetime import timedelta
from typing import Final, NamedTuple
from uuid import UUID

from accord.errors.v1.errors_pb2 import Reason
from accord_auth.tokens import EMAIL_PREFIX, RESET_PREFIX, SECOND_STEP_PREFIX, new_token, token_hash, well_formed
from accord_db.engine.database import Database, Transaction
from accord_db.engine.ids import uuid7
from accord_db.queries import account_tokens, accounts
from accord_db.schema import Account, AccountToken, TokenPurpose
from accord_rpc.call import call
from accord_rpc.errors import RpcError


class Kind(NamedTuple):
    """The purpose, prefix and lifetime of a token."""

    purpose: TokenPurpose
    prefix: str
    lifetime: timedelta


VERIFY_EMAIL: Final = Kind(TokenPurpose.VERIFY_EMAIL, EMAIL_PREFIX, timedelta(hours=24))
CHANGE_EMAIL: Final = Kind(TokenPurpose.CHANGE_EMAIL, EMAIL_PREFIX, timedelta(hours=24))
RESET_PASSWORD: Final = Kind(TokenPurpose.RESET_PASSWORD, RESET_PREFIX, timedelta(hours=1))
SECOND_STEP: Final = Kind(TokenPurpose.SECOND_STEP, SECOND_STEP_PREFIX, timedelta(minutes=10))

MAILED: Final = (VERIFY_EMAIL, CHANGE_EMAIL, RESET_PASSWORD)
ALL: Final = (*MAILED, SECOND_STEP)


async def issue(tx: Transaction, kind: Kind, *, account_id: UUID, email: str, provider: str | None = None) -> str:
    """Returns a new token, which is not stored, and invalidates the account's others of its kind. `provider`: that of the first
    step of a sign-in.

    If there is no such account it is the same work, and the token is good for nothing. The account is to be locked.
    """
    token = new_token(kind.prefix)
    await account_tokens.insert_token(
        tx,
        token_id=uuid7(),
        account_id=account_id,
        purpose=kind.purpose,
        token_hash=token_hash(token),
        email=email,
        provider=provider,
        lifetime=kind.lifetime,
    )
    return token


async def find(db: Database, token: str, *kinds: Kind) -> AccountToken:
    """The row of a valid token of one of these kinds. Does not use it. Raises TOKEN_INVALID."""
    if not any(well_formed(token, kind.prefix) for kind in kinds):
        raise invalid_token()
    purposes = [kind.purpose for kind in kinds]
    found = await account_tokens.get_token(db, token_hash=token_hash(token), purposes=purposes)
    if found is None:
        raise invalid_token()
    call().note(account_id=found.account_id, target=found.account_id)
    return found


async def use(tx: Transaction, found: AccountToken) -> Account:
    """Uses the token and returns its account. The token is invalid once the transaction commits. Raises TOKEN_INVALID.

    The account is locked first, as everywhere: of those who use a token at once, the others wait here and are refused.
    """
    account = await accounts.get_account_locked(tx, account_id=found.account_id)
    if account is None or not await account_tokens.use_token(tx, token_id=found.id):
        raise invalid_token()
    return account


async def void(tx: Transaction, account_id: UUID, *kinds: Kind) -> None:
    """Invalidates the account's tokens of these kinds."""
    await account_tokens.delete_tokens(tx, account_id=account_id, purposes=[kind.purpose for kind in kinds])


def invalid_token() -> RpcError:
    return RpcError(Reason.REASON_TOKEN_INVALID)
