"""Where calls may go that are not encrypted: to this machine, and to no other."""

import ipaddress
import re
from typing import Final

_ADDRESS: Final = re.compile(
    r"(?:dns:(?:///)?|ipv4:|ipv6:)?(?:\[(?P<ipv6>[^\[\]]+)\]|(?P<host>[^\[\]:/,@]+)):(?P<port>\d+)"
)


class PlainTextRefused(ValueError):
    """The channel would carry passwords and tokens over a network for everybody to read."""


def require_loopback(address: str) -> None:
    """Raises PlainTextRefused for any address that is not surely of this machine."""
    if not _is_loopback(address):
        raise PlainTextRefused(
            f"{address} is not on this machine: without TLS, calls go to 127.0.0.1, ::1 or localhost."
        )


def _is_loopback(address: str) -> bool:
    found = _ADDRESS.fullmatch(address)
    if found is None:
        return False
    host = found["ipv6"] or found["host"]
    if host == "localhost":  # by RFC 6761, 6.3, this machine and nothing else
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
