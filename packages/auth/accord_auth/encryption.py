"""Encryption of stored secrets that must be readable again: AES-256-GCM, bound to their place.

A ciphertext that was changed, or moved to another row, column or account, does not decrypt.
"""

import secrets
from collections.abc import Mapping
from typing import NamedTuple
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32

_VERSION = b"\x01"
_NONCE_BYTES = 12  # random, for at most 2^32 values per key (NIST SP 800-38D, 8.3)


class Place(NamedTuple):
    """Where a value is stored, and the account that it belongs to."""

    table: str
    column: str
    row_id: UUID
    account_id: UUID | None = None

    def __str__(self) -> str:
        return f"{self.table}.{self.column} of {self.row_id}"


class Undecipherable(Exception):
    """The key is missing, or the ciphertext was changed or moved. The message contains the place and no value."""


class Keyring:
    """The first key encrypts, all keys decrypt, so that keys can be rotated in use.

    Format of a ciphertext: version, length of the key id, key id, nonce, encrypted value and tag.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        if not keys or any(len(key) != KEY_BYTES or not 1 <= len(name.encode()) <= 255 for name, key in keys.items()):
            raise ValueError(f"at least one key is required, each with an id and {KEY_BYTES} bytes")
        if len(set(keys.values())) < len(keys):
            raise ValueError("two ids have the same key: rotating from one to the other would have no effect")
        # By the whole head of their ciphertexts: another version, or a truncated id, matches none.
        self._keys = {_head(name): AESGCM(key) for name, key in keys.items()}
        self._current = next(iter(self._keys))

    def encrypt(self, value: bytes, place: Place) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return (
            self._current
            + nonce
            + self._keys[self._current].encrypt(nonce, value, _associated_data(self._current, place))
        )

    def decrypt(self, ciphertext: bytes, place: Place) -> bytes:
        """Raises Undecipherable."""
        head, rest = _split(ciphertext)
        key = self._keys.get(head)
        if key is None:
            raise Undecipherable(f"{place}: its key is missing")
        try:
            return key.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], _associated_data(head, place))
        except (InvalidTag, ValueError):  # ValueError: a truncated nonce
            raise Undecipherable(f"{place}: changed, or moved from another place") from None

    def is_current(self, ciphertext: bytes) -> bool:
        """Whether the first key encrypted it. Before another key is removed, its values must be encrypted again."""
        return _split(ciphertext)[0] == self._current


def _head(name: str) -> bytes:
    return _VERSION + bytes([len(name.encode())]) + name.encode()


def _split(ciphertext: bytes) -> tuple[bytes, bytes]:
    end = 2 + ciphertext[1] if len(ciphertext) > 1 else 0
    return ciphertext[:end], ciphertext[end:]


def _associated_data(head: bytes, place: Place) -> bytes:
    """The associated data: authenticated, not stored, and the same when the value is read."""
    owner = place.account_id.bytes if place.account_id else b""
    parts = (head, place.table.encode(), place.column.encode(), place.row_id.bytes, owner)
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)
