"""Case folding of addresses and names, independent of the database's collation: Turkish ones fold `I` to `ı`."""

import string
import unicodedata

from sqlalchemy import Dialect, String
from sqlalchemy.types import TypeDecorator

_TO_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def fold_email(address: str) -> str:
    """The form in which an e-mail address is stored, compared and mailed to: A to Z in lower case, the rest unchanged.

    RFC 5321, section 2.4 lets a server distinguish the case of local parts and advises against it; no large provider does. Other
    letters do not change: the contract accepts only ASCII, and full case folding maps some characters to ASCII (the Kelvin sign
    to k), so that a password reset could reach another mailbox (CVE-2019-19844).
    """
    return address.translate(_TO_LOWER)


def fold_name(name: str) -> str:
    """The form in which names that users choose are compared: canonical caseless matching (Unicode, D145)."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


class EmailAddress(TypeDecorator[str]):
    """The type of columns with an e-mail address. It folds every value that a statement stores or compares with one."""

    impl = String
    cache_ok = True

    def __init__(self) -> None:
        super().__init__(254)

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else fold_email(value)
