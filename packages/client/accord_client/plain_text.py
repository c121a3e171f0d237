"""Restricts calls without TLS to addresses of this machine."""

import ipaddress
import re
from typing import Final

_ADDRESS: Final = re.compile(
    r"(?:dns:(?:///)?|ipv4:|ipv6:)?(?:\[(?P<ipv6>[^\[\]]+)\]|(?P<host>[^\[\]:/,@]+)):(?P<port>\d+)"
)


class PlainTextRefused(ValueError):
    """The channel would send passwords and tokens unencrypted over a network."""


def require_loopback(address: str) -> None:
    """Raises PlainTextRefused."""
    if not _is_loopback(address):
        raise PlainTextRefused(
            f"{address} is not an address of this machine. Without TLS, use 127.0.0.1, ::1 or localhost."
        )


def _is_loopback(address: str) -> bool:
    match = _ADDRESS.fullmatch(address)
    if match is None:
        return False
    host = match["ipv6"] or match["host"]
    if host == "localhost":  # RFC 6761, 6.3
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
