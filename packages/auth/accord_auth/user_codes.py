"""User codes of devices: short enough to be read off one screen and typed on another (RFC 8628, 6.1)."""

import hashlib
import hmac
import secrets
from typing import Final

# Without vowels, so that no code is a word: 20^8 codes are 34 bits, of which a person may try ten in ten minutes.
_LETTERS: Final = "BCDFGHJKLMNPQRSTVWXZ"
_GROUP: Final = 4


def new_user_code() -> str:
    """As it is shown: `WDJB-MJHT`."""
    letters = "".join(secrets.choice(_LETTERS) for _ in range(2 * _GROUP))
    return f"{letters[:_GROUP]}-{letters[_GROUP:]}"


class UserCodes:
    """Hashes codes with a key that all processes of an installation share: of so few codes, a plain hash would tell each."""

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.sha256(b"accord user codes\0" + key).digest()

    def hash(self, entered: str) -> bytes:
        """In upper or lower case, and with whatever stands between the letters."""
        letters = "".join(letter for letter in entered.upper() if letter in _LETTERS)
        return hmac.digest(self._key, letters.encode(), "sha256")
