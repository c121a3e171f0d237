"""Opaque tokens: a prefix for the kind, 256 random bits and a checksum.

Secret scanners find them by `ac[a-z]_[A-Za-z0-9_-]{48}`. The most valuable ones are `acs_` (session) and `ack_` (API key).
"""

import hashlib
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import crc32

SESSION_PREFIX = "acs_"
EMAIL_PREFIX = "acv_"
RESET_PREFIX = "acr_"
SECOND_STEP_PREFIX = "act_"
DEVICE_PREFIX = "acd_"
PROVIDER_SIGN_IN_PREFIX = "acp_"
INVITATION_PREFIX = "acj_"
API_KEY_PREFIX = "ack_"
CLIENT_PREFIX = "acc_"

_SECRET_BYTES = 32
# 32 random bytes and 4 of checksum are 48 characters without padding or unused bits: a token has one spelling.
_BODY = re.compile(r"[A-Za-z0-9_-]{48}")


def new_session_token() -> str:
    return new_token(SESSION_PREFIX)


def new_token(prefix: str) -> str:
    secret = secrets.token_bytes(_SECRET_BYTES)
    return prefix + urlsafe_b64encode(secret + _checksum(prefix, secret)).decode()


def well_formed(token: str, prefix: str = SESSION_PREFIX) -> bool:
    """Rejects mistyped, truncated and invented tokens without a query. It does not authenticate."""
    if not token.startswith(prefix) or _BODY.fullmatch(token, len(prefix)) is None:
        return False
    body = urlsafe_b64decode(token[len(prefix) :])
    return body[_SECRET_BYTES:] == _checksum(prefix, body[:_SECRET_BYTES])


def token_hash(token: str) -> bytes:
    """The stored form. 256 random bits cannot be guessed, so neither a salt nor a slow hash is needed."""
    return hashlib.sha256(token.encode()).digest()


def _checksum(prefix: str, secret: bytes) -> bytes:
    # Includes the prefix: a token with the prefix of another kind is malformed.
    return crc32(secret, crc32(prefix.encode())).to_bytes(4, "big")
