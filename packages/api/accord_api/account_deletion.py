"""Deletion of accounts, by their owners and by administrators."""

from uuid import UUID

from accord_api import account_tokens
from accord_api.membership_changes import leave_all
from accord_auth.sessions import Sessions
from accord_db.engine.database import Transaction
from accord_db.queries import providers


async def end_account(tx: Transaction, sessions: Sessions, account_id: UUID) -> None:
    """Ends the tokens, linked identities, memberships and sessions of a deleted account. Locks its organizations, so that no
    account may be locked after it. Raises LAST_OWNER."""
    await account_tokens.void(tx, account_id, *account_tokens.ALL)
    await providers.delete_linked_providers_of_account(tx, account_id=account_id)
    await leave_all(tx, sessions, account_id)
    await sessions.revoke_all(tx, account_id)
