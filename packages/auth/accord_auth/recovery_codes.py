"""Recovery codes, for users who have lost their authenticator app."""

import re
import secrets
from base64 import b32encode
from typing import Final

from accord_auth.tokens import token_hash

RECOVERY_CODES: Final = 10

# 120 bits: from 112 on, a fast hash is enough (ASVS 5.0, 6.5.2). 24 letters in base 32, without padding.
_BYTES = 15
_GROUP = re.compile(r"....")
_CODE = re.compile(r"[A-Z2-7]{24}", re.IGNORECASE | re.ASCII)


def new_recovery_codes() -> list[str]:
    """In groups of four: `ABCD-EFGH-…`."""
    return ["-".join(_GROUP.findall(b32encode(secrets.token_bytes(_BYTES)).decode())) for _ in range(RECOVERY_CODES)]


def recovery_code_hash(code: str) -> bytes | None:
    """The stored form. Ignores case and dashes. None if the code is malformed."""
    plain = code.replace("-", "")
    return token_hash(plain.upper()) if _CODE.fullmatch(plain) else None
