"""Connect calls that stream requests, responses or both: length-prefixed messages, and the status in the last of them."""

from typing import Final

from grpc.aio import EOF

from accord_rpc.errors import FieldViolation, invalid
from accord_rpc.protocols.compression import COMPRESS_FROM, GZIP
from accord_rpc.protocols.connect.calls import ConnectContext, Endpoint
from accord_rpc.protocols.framing import COMPRESSED, FramingError, MessageReader, compress, frame
from accord_rpc.protocols.http_errors import SAFE_HEADERS, connect_error, ended_with
from accord_rpc.protocols.json_codec.writer import to_json
from accord_rpc.server.exchange import Exchange, Headers

_END: Final = 2
"""The flag of the last message of a response, which has the status and the trailers."""


class StreamContext(ConnectContext):
    __slots__ = ("_reader",)

    def __init__(self, endpoint: Endpoint, exchange: Exchange, *, is_json: bool) -> None:
        super().__init__(
            endpoint,
            exchange,
            is_json=is_json,
            encoding=b"connect-content-encoding",
            accept_encoding=b"connect-accept-encoding",
        )
        self._reader = MessageReader(self._encoding)

    async def read(self) -> object:
        await self._check()
        try:
            found = await self._take()
        except FramingError as error:
            raise await self._refuse(error) from None
        if found is None:
            return EOF
        flags, message = found
        if flags & ~COMPRESSED:
            raise invalid(FieldViolation("", "a message has flags that requests do not have"))
        return self._request(message)

    async def _take(self) -> tuple[int, bytes] | None:
        reader = self._reader
        while (found := reader.take()) is None:
            data = await self._exchange.receive()
            if data is None:
                if not reader.is_empty:
                    raise invalid(FieldViolation("", "the body ends within a message"))
                return None
            reader.feed(data)
        return found

    async def write(self, message: bytes) -> None:
        if not self._exchange.started:
            self._exchange.start(200, self._head())
        await self._exchange.send(self._framed(self._response(message)))

    def close(self) -> None:
        self._reader.close()

    def encoded(self, response: bytes) -> bytes:
        return self._response(response)

    def end(self, response: bytes | None) -> None:
        data = self._last() if response is None else self._framed(response) + self._last()
        if self._exchange.started:
            self._exchange.finish(data)
        else:
            self._exchange.respond(200, self._head(), data)

    def _head(self) -> Headers:
        kind = b"application/connect+json" if self._is_json else b"application/connect+proto"
        head = [(b"content-type", kind), *SAFE_HEADERS, *self._own_headers()]
        if self._gzips:
            head.append((b"connect-content-encoding", GZIP))
        if self._encoding not in (b"identity", GZIP):
            head.append((b"connect-accept-encoding", GZIP))
        return head

    def _framed(self, data: bytes) -> bytes:
        if self._gzips and len(data) >= COMPRESS_FROM:
            return frame(compress(data, GZIP), COMPRESSED)
        return frame(data)

    def _last(self) -> bytes:
        end: dict[str, object] = {}
        if self.status:
            end["error"] = connect_error(ended_with(self))
        metadata: dict[str, list[str]] = {}
        for name, value in self._trailers():
            metadata.setdefault(name, []).append(value.decode())
        if metadata:
            end["metadata"] = metadata
        return frame(to_json(end), _END)
