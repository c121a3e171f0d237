"""Codes of authenticator apps: TOTP (RFC 6238) with the parameters that every app supports: SHA-1, 6 digits, 30 seconds.

The time is a parameter: the database's clock decides.
"""

import secrets
from base64 import b32encode
from datetime import datetime
from hmac import compare_digest
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

ISSUER: Final = "Accord"

_SECRET_BYTES = 20  # the length of SHA-1 (RFC 4226, section 4, R6)
_DIGITS = 6
_STEP_SECONDS = 30
# For clocks that differ and for transmission delay (RFC 6238, 5.2).
_STEPS_OFF = 1


def new_secret() -> bytes:
    return secrets.token_bytes(_SECRET_BYTES)


def secret_text(secret: bytes) -> str:
    """In base 32, to be typed into an app."""
    return b32encode(secret).decode()


def otpauth_uri(secret: bytes, email: str) -> str:
    """The content of the QR code."""
    return _totp(secret).get_provisioning_uri(email, ISSUER)


def step_at(time: datetime) -> int:
    return int(time.timestamp()) // _STEP_SECONDS


def code_at(secret: bytes, step: int) -> str:
    return _totp(secret).generate(step * _STEP_SECONDS).decode()


def step_of(code: str, secret: bytes, now: datetime) -> int | None:
    """The step that the code belongs to: the current one or a neighbour. None if the code is wrong. All are compared, each in
    constant time."""
    present = step_at(now)
    steps = range(present - _STEPS_OFF, present + _STEPS_OFF + 1)
    matching = [step for step in steps if compare_digest(code_at(secret, step).encode(), code.encode())]
    return max(matching, default=None)


def _totp(secret: bytes) -> TOTP:
    return TOTP(secret, _DIGITS, SHA1(), _STEP_SECONDS)  # noqa: S303 — secure in HMAC, and most apps support no other
