"""Which addresses a provider may have."""

import ipaddress
from urllib.parse import urlsplit


def is_secure(address: str, *, insecure_loopback: bool) -> bool:
    """Whether it is https, or leads to this machine and that is enough. Nothing but host, port, path and query is in it."""
    if not address.isascii() or not address.isprintable() or " " in address or "\\" in address:
        return False
    try:
        url = urlsplit(address)
        host, _ = url.hostname, url.port
    except ValueError:
        return False
    if not host or url.username is not None or url.password is not None or "#" in address:
        return False
    return url.scheme == "https" or (url.scheme == "http" and insecure_loopback and _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
