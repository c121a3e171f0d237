"""Codes of authenticator apps: TOTP (RFC 6238) with what every app knows, SHA-1, six digits and thirty seconds.

What time it is comes from whoever asks: here no clock is read.
"""

import secrets
from base64 import b32encode
from datetime import datetime
from hmac import compare_digest
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

ISSUER: Final = "Accord"

_SECRET_BYTES = 20  # as long as what SHA-1 makes (RFC 4226, section 4, R6)
_DIGITS = 6
_STEP_SECONDS = 30
# How many steps the clock of a phone may be off, which is also how long a code may take on its way (RFC 6238, 5.2).
_STEPS_OFF = 1


def new_secret() -> bytes:
    return secrets.token_bytes(_SECRET_BYTES)


def secret_text(secret: bytes) -> str:
    """As it is typed where there is no camera."""
    return b32encode(secret).decode()


def otpauth_uri(secret: bytes, email: str) -> str:
    """What an app reads from a QR code."""
    return _totp(secret).get_provisioning_uri(email, ISSUER)


def step_at(time: datetime) -> int:
    return int(time.timestamp()) // _STEP_SECONDS


def code_at(secret: bytes, step: int) -> str:
    return _totp(secret).generate(step * _STEP_SECONDS).decode()


def step_of(code: str, secret: bytes, now: datetime) -> int | None:
    """The step whose code it is, the present one or a neighbour; None if it is none of theirs. All are compared, in
    constant time: how long that takes tells nothing."""
    present = step_at(now)
    steps = range(present - _STEPS_OFF, present + _STEPS_OFF + 1)
    matching = [step for step in steps if compare_digest(code_at(secret, step).encode(), code.encode())]
    return max(matching, default=None)


def _totp(secret: bytes) -> TOTP:
    return TOTP(secret, _DIGITS, SHA1(), _STEP_SECONDS)  # noqa: S303 — in HMAC it holds, and most apps know no other
