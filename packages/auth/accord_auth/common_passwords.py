"""The commonest passwords, of which nobody may choose one (ASVS 5.0, 6.2.4; NIST SP 800-63B-4, 3.1.1.2).

Where they come from, under which licence, and how many: docs/decisions/0010-common-passwords.md.
"""

import gzip
from functools import cache
from importlib.resources import files


def is_common(password: str) -> bool:
    """Whether it is among them, whatever its capitals."""
    return "\n" not in password and f"\n{password.casefold()}\n".encode() in _lines()


@cache
def _lines() -> bytes:
    """Each with a line break before and after it: one block of bytes takes 0.4 MB, a set of strings 4.4."""
    return b"\n" + gzip.decompress((files("accord_auth") / "common_passwords.txt.gz").read_bytes()) + b"\n"
