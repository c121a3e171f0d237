"""AccountService: sign-up, sign-in, and the caller's account."""

from accord_api.handlers.accounts.emails import Emails
from accord_api.handlers.accounts.passwords import AccountPasswords
from accord_api.handlers.accounts.profiles import Profiles
from accord_api.handlers.accounts.signing_in import SigningIn
from accord_api.handlers.accounts.signing_up import SigningUp

__all__ = ["AccountService"]


class AccountService(SigningUp, SigningIn, Emails, AccountPasswords, Profiles):
    """Each base class has the methods of one subject."""
