"""Forged tokens that are well formed: with the right prefix, length and checksum."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import crc32
from collections.abc import Iterator

from accord_auth.tokens import well_formed


def flipped(token: str, prefix: str) -> Iterator[str]:
    """Copies of the token, each with another byte of its secret changed."""
    secret = urlsafe_b64decode(token.removeprefix(prefix))[:-4]
    for place in range(len(secret)):
        other = secret[:place] + bytes([secret[place] ^ 1]) + secret[place + 1 :]
        checksum = crc32(other, crc32(prefix.encode())).to_bytes(4, "big")
        forged = prefix + urlsafe_b64encode(other + checksum).decode()
        assert well_formed(forged, prefix)
        assert forged != token
        yield forged
