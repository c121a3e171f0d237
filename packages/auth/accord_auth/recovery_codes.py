"""Recovery codes: what a person keeps on paper for the day on which the authenticator app is lost."""

import re
import secrets
from base64 import b32encode
from typing import Final

from accord_auth.tokens import token_hash

RECOVERY_CODES: Final = 10

# With 112 bits or more a plain hash is enough to store it by (OWASP ASVS 5.0, 6.5.2). These are 24 letters, no padding.
_BYTES = 15
_GROUP = re.compile(r"....")
_CODE = re.compile(r"[A-Z2-7]{24}", re.IGNORECASE | re.ASCII)


def new_recovery_codes() -> list[str]:
    """In groups that can be read out: `ABCD-EFGH-…`."""
    return ["-".join(_GROUP.findall(b32encode(secrets.token_bytes(_BYTES)).decode())) for _ in range(RECOVERY_CODES)]


def recovery_code_hash(code: str) -> bytes | None:
    """By what it is stored, whatever its case and dashes. None if it cannot be one, so that nobody need be asked."""
    plain = code.replace("-", "")
    return token_hash(plain.upper()) if _CODE.fullmatch(plain) else None
