"""Which responses are compressed, if the client accepts it."""

from typing import Final, cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from accord_rpc.policy import has_sensitive_field

GZIP: Final = b"gzip"
COMPRESS_FROM: Final = 16 * 1024
"""Bytes. Compressing a smaller response takes longer than sending it over most networks."""


def may_compress(response: type[Message]) -> bool:
    """Not if it can have a secret, which the length of the compressed response could reveal (BREACH)."""
    return not has_sensitive_field(cast(Descriptor, response.DESCRIPTOR))  # annotated as a union of two equal classes


def accepts_gzip(value: bytes) -> bool:
    """RFC 9110, section 12.5.3."""
    for each in value.lower().split(b","):
        coding, _, weight = each.partition(b";")
        if coding.strip() == GZIP:
            return weight.strip() not in (b"q=0", b"q=0.0", b"q=0.00", b"q=0.000")
    return False
