"""The headers that the server adds to every response."""

from email.utils import formatdate
from time import time

from accord_rpc.server.exchange import Headers


class OwnHeaders:
    """The date (RFC 9110, section 6.6.1) and `fixed` headers, made once a second."""

    __slots__ = ("_fixed", "_headers", "_lines", "_second")

    def __init__(self, fixed: Headers = ()) -> None:
        self._fixed = tuple(fixed)
        self._second = 0
        self._headers: Headers = ()
        self._lines = b""

    def headers(self) -> Headers:
        if int(time()) != self._second:
            self._renew()
        return self._headers

    def lines(self) -> bytes:
        """As HTTP/1.1 writes them."""
        if int(time()) != self._second:
            self._renew()
        return self._lines

    def _renew(self) -> None:
        self._second = int(time())
        self._headers = ((b"date", formatdate(self._second, usegmt=True).encode()), *self._fixed)
        self._lines = b"".join(b"%b: %b\r\n" % header for header in self._headers)
