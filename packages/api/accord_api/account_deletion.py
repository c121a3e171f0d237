"""Deletion of accounts, by their owners and by administrators."""

from uuid import UUID

from accord_api import account_tokens
from accord_api.membership_changes import leave_all
from accord_auth.sessions import Sessions
from accord_db.engine.database import Transaction
from accord_db.queries import accounts, providers
from accord_db.schema import Account


async def delete_account(tx: Transaction, sessions: Sessions, account_id: UUID) -> Account | None:
    """The softly deleted account, whose sessions, memberships, linked identities and tokens end with it. None if it does not
    exist. Raises LAST_OWNER. Does not check for the last administrator."""
    account = await accounts.delete_account(tx, account_id=account_id)
    if account is None:
        return None
    await account_tokens.void(tx, account_id, *account_tokens.ALL)
    await providers.delete_linked_providers_of_account(tx, account_id=account_id)
    await leave_all(tx, sessions, account_id)
    await sessions.revoke_all(tx, account_id)
    return account
