"""Where a call comes from, as grpcio tells it: `ipv4:127.0.0.1:50412`, `ipv6:%5B::1%5D:50412`, `unix:`."""

from ipaddress import IPv6Address, IPv6Network, ip_address
from urllib.parse import unquote


def peer_address(peer: str) -> str:
    """The address without its port; the whole text where there is no network address in it."""
    kind, _, rest = unquote(peer).partition(":")
    if kind not in ("ipv4", "ipv6"):
        return peer
    return rest.rpartition(":")[0].strip("[]").partition("%")[0]


def peer_network(peer: str) -> str:
    """Whom to count together: an IPv4 address alone, an IPv6 address by its /64, which is what one customer gets."""
    try:
        address = ip_address(peer_address(peer))
    except ValueError:
        return peer
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped) if mapped else str(IPv6Network((address, 64), strict=False))
    return str(address)
