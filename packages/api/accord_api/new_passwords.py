"""New passwords: of sign-up, of changes and resets, and of administrators."""

from accord_api.outbox import Mail, Outbox
from accord_auth.passwords import Passwords
from accord_db.engine.database import Transaction
from accord_db.queries import accounts
from accord_db.schema import Account
from accord_rpc.errors import FieldViolation, invalid


def check_new_password(passwords: Passwords, field: str, password: str, *, email: str) -> None:
    """Raises INVALID_MESSAGE for a password that may not be chosen."""
    if problems := passwords.problems(password, email=email):
        raise invalid(*(FieldViolation(field, problem) for problem in problems))


async def set_password(
    tx: Transaction, outbox: Outbox, account: Account, new_hash: str, *, change_required: bool = False
) -> Account:
    """Notifies the owner. The account is locked. `change_required`: the person must change the password again."""
    changed = await accounts.update_password_hash(
        tx, account_id=account.id, password_hash=new_hash, change_required=change_required
    )
    assert changed is not None  # it is locked
    await outbox.post(tx, Mail.PASSWORD_CHANGED, to=account.email, display_name=account.display_name)
    return changed
