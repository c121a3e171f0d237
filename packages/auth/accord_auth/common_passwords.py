"""Common passwords, which no account may use (ASVS 5.0, 6.2.4; NIST SP 800-63B-4, 3.1.1.2).

Source and licence: docs/decisions/0010-common-passwords.md.
"""

import gzip
from functools import cache
from importlib.resources import files


def is_common(password: str) -> bool:
    """Ignores case."""
    return "\n" not in password and f"\n{password.casefold()}\n".encode() in _lines()


@cache
def _lines() -> bytes:
    """One password per line, each between line breaks. As bytes they take 0.4 MB, as a set of strings 4.4 MB."""
    return b"\n" + gzip.decompress((files("accord_auth") / "common_passwords.txt.gz").read_bytes()) + b"\n"
