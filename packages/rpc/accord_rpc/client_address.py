"""The client's address: that of the connection, or the one that a trusted proxy forwards."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import unquote

FORWARDED_HEADER: Final = "x-forwarded-for"
_WITH_PORT: Final = re.compile(r"(?:\[([^]]+)\]|([^\[:]+))(?::[0-9]+)?")
# Characters. No address is longer, and longer text must not fill the caches.
_LONGEST: Final = 64

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network


class _Place(NamedTuple):
    address: str
    is_proxy: bool


class ClientAddresses:
    """Finds the client's address. Only connections from the `proxies` networks, and through a unix socket if `unix`, may forward
    another address."""

    def __init__(self, proxies: Iterable[Network] = (), *, unix: bool = False) -> None:
        self._proxies = tuple(proxies)
        self._unix = unix
        # The same places come with every call; an address is parsed in the time of ten look-ups.
        self._connection = lru_cache(maxsize=4096)(self._read_connection)
        self._hop = lru_cache(maxsize=4096)(self._read)

    def address(self, connection: str, forwarded: Sequence[str]) -> str:
        """`connection` is grpcio's `context.peer()`, `forwarded` the values of all x-forwarded-for headers. Returns
        `connection` unchanged if it has no network address."""
        place = self._connection(connection)
        if forwarded and place.is_proxy:
            place = self._first_untrusted(place, ",".join(forwarded))
        return place.address

    def _first_untrusted(self, proxy: _Place, forwarded: str) -> _Place:
        """Each proxy appends the address it received the call from. Reads from the right up to the first address that is not a
        trusted proxy, or to a value that is not an address."""
        found = proxy
        for hop in reversed(forwarded.split(",")):
            place = self._hop(hop.strip()[:_LONGEST])
            if place is None:
                return found
            if not place.is_proxy:
                return place
            found = place
        return found

    def _read_connection(self, connection: str) -> _Place:
        kind, _, place = unquote(connection).partition(":")
        read = self._read(place) if kind in ("ipv4", "ipv6") else None
        return read or _Place(connection, is_proxy=self._unix and kind == "unix")

    def _read(self, place: str) -> _Place | None:
        address = _address(place)
        return _Place(str(address), any(address in network for network in self._proxies)) if address else None


def is_within(address: str, networks: Iterable[Network]) -> bool:
    """Whether an address of a connection, such as `192.0.2.7` or `::ffff:192.0.2.7`, is in one of the networks."""
    found = _address(address)
    return found is not None and any(found in network for network in networks)


def _address(place: str) -> Address | None:
    """`192.0.2.7`, `192.0.2.7:50412`, `2001:db8::7`, `[2001:db8::7]:50412`, `fe80::7%eth0`; None for anything else."""
    with_port = _WITH_PORT.fullmatch(place)
    text = with_port[1] or with_port[2] if with_port else place
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


@lru_cache(maxsize=4096)
def peer_network(peer: str) -> str:
    """The network that rate limits count as one: an IPv4 address, or the /64 of an IPv6 address, which one customer gets."""
    try:
        address = ip_address(peer)
    except ValueError:
        return peer
    return peer if isinstance(address, IPv4Address) else str(IPv6Network((address, 64), strict=False))
