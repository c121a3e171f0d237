"""Whether an account is kept out."""

from datetime import UTC, datetime

from accord_db.schema import Account


def is_banned(account: Account) -> bool:
    """Now, by this machine's clock. A session that is opened too soon by it is refused all the same, by the database's."""
    if account.banned_at is None:
        return False
    return account.banned_until is None or datetime.now(UTC) < account.banned_until
