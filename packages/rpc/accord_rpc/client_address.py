"""Where a call comes from: the address of its connection, or the one that a listed proxy forwards for."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import unquote

FORWARDED_HEADER: Final = "x-forwarded-for"
_WITH_PORT: Final = re.compile(r"(?:\[([^]]+)\]|([^\[:]+))(?::[0-9]+)?")
# Of a text: no address is longer, and garbage shall not fill the memory.
_LONGEST: Final = 64

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network


class _Place(NamedTuple):
    address: str
    is_proxy: bool


class ClientAddresses:
    """Tells the address that counts as a call's. Whoever is in none of the `proxies` networks speaks for itself alone."""

    def __init__(self, proxies: Iterable[Network] = ()) -> None:
        self._proxies = tuple(proxies)
        # The same places come with every call; an address is parsed in the time of ten look-ups.
        self._connection = lru_cache(maxsize=4096)(self._read_connection)
        self._hop = lru_cache(maxsize=4096)(self._read)

    def address(self, connection: str, forwarded: Sequence[str]) -> str:
        """`connection` as grpcio tells it, `forwarded` the values of all x-forwarded-for headers. The whole text of
        the connection where there is no network address in it."""
        place = self._connection(connection)
        if forwarded and place.is_proxy:
            place = self._first_believed(place, ",".join(forwarded))
        return place.address

    def _first_believed(self, proxy: _Place, forwarded: str) -> _Place:
        """Each proxy adds at the right end whom it has the call from, so that is how far it can be believed: up to the
        first that is no proxy of ours, or to what is no address."""
        believed = proxy
        for hop in reversed(forwarded.split(",")):
            place = self._hop(hop.strip()[:_LONGEST])
            if place is None:
                return believed
            if not place.is_proxy:
                return place
            believed = place
        return believed

    def _read_connection(self, connection: str) -> _Place:
        kind, _, place = unquote(connection).partition(":")
        read = self._read(place) if kind in ("ipv4", "ipv6") else None
        return read or _Place(connection, is_proxy=False)

    def _read(self, place: str) -> _Place | None:
        address = _address(place)
        return _Place(str(address), any(address in network for network in self._proxies)) if address else None


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
    """Whom to count together: an IPv4 address alone, an IPv6 address by its /64, which is what one customer gets."""
    try:
        address = ip_address(peer)
    except ValueError:
        return peer
    return peer if isinstance(address, IPv4Address) else str(IPv6Network((address, 64), strict=False))
