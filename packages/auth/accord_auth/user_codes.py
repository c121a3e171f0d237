"""User codes, read from a device's screen and typed on another (RFC 8628, 6.1)."""

import hashlib
import hmac
import secrets
import string
from typing import Final

# No vowels, so no words. 20^8 codes are 34 bits; a user may try ten in ten minutes.
_LETTERS: Final = "BCDFGHJKLMNPQRSTVWXZ"
_GROUP: Final = 4
# ASCII only: `str.upper` would read ß as SS.
_TO_UPPER: Final = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)


def new_user_code() -> str:
    """As displayed: `WDJB-MJHT`."""
    letters = "".join(secrets.choice(_LETTERS) for _ in range(2 * _GROUP))
    return f"{letters[:_GROUP]}-{letters[_GROUP:]}"


class UserCodes:
    """Hashes codes with a key that all processes share: there are so few codes that a hash without a key could be reversed."""

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.sha256(b"accord user codes\0" + key).digest()

    def hash(self, entered: str) -> bytes:
        """Ignores case, and all characters that no code has."""
        letters = "".join(letter for letter in entered.translate(_TO_UPPER) if letter in _LETTERS)
        return hmac.digest(self._key, letters.encode(), "sha256")
