"""What must be read again is stored encrypted: AES-256-GCM, bound to the place where it lies.

A ciphertext that was moved to another row, column or account, or changed in any bit, is refused.
"""

import secrets
from collections.abc import Mapping
from typing import NamedTuple
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32

_VERSION = b"\x01"
_NONCE_BYTES = 12  # random: one key may seal 2^32 values (NIST SP 800-38D, 8.3)


class Place(NamedTuple):
    """Where a value is stored, and whose it is."""

    table: str
    column: str
    row_id: UUID
    account_id: UUID | None = None

    def __str__(self) -> str:
        return f"{self.table}.{self.column} of {self.row_id}"


class Undecipherable(Exception):
    """The key is not at hand, or the ciphertext was altered or belongs elsewhere. Says of which place, and no more."""


class Keyring:
    """The first key encrypts; all of them decrypt, so that keys can be changed while values are in use.

    A ciphertext is: version, length of the key's id, the id, nonce, sealed value.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        if not keys or any(len(key) != KEY_BYTES or not 1 <= len(name.encode()) <= 255 for name, key in keys.items()):
            raise ValueError(f"there must be a key, and each must have an id and {KEY_BYTES} bytes")
        if len(set(keys.values())) < len(keys):
            raise ValueError("two ids have the same key: to change from one to the other would change nothing")
        # By the whole head of what they encrypt: a ciphertext of another version or with half an id finds none.
        self._keys = {_head(name): AESGCM(key) for name, key in keys.items()}
        self._current = next(iter(self._keys))

    def encrypt(self, value: bytes, place: Place) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return self._current + nonce + self._keys[self._current].encrypt(nonce, value, _bound(self._current, place))

    def decrypt(self, ciphertext: bytes, place: Place) -> bytes:
        """Raises Undecipherable."""
        head, rest = _split(ciphertext)
        key = self._keys.get(head)
        if key is None:
            raise Undecipherable(f"{place}: no key at hand")
        try:
            return key.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], _bound(head, place))
        except (InvalidTag, ValueError):  # the latter of a nonce that was cut
            raise Undecipherable(f"{place}: altered, or from elsewhere") from None

    def is_current(self, ciphertext: bytes) -> bool:
        """Whether the first key encrypted it; what others did is to be encrypted anew before they are taken away."""
        return _split(ciphertext)[0] == self._current


def _head(name: str) -> bytes:
    return _VERSION + bytes([len(name.encode())]) + name.encode()


def _split(ciphertext: bytes) -> tuple[bytes, bytes]:
    end = 2 + ciphertext[1] if len(ciphertext) > 1 else 0
    return ciphertext[:end], ciphertext[end:]


def _bound(head: bytes, place: Place) -> bytes:
    """What is sealed with the value and stored nowhere: it has to be the same when the value is read."""
    owner = place.account_id.bytes if place.account_id else b""
    parts = (head, place.table.encode(), place.column.encode(), place.row_id.bytes, owner)
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)
