"""Random exchanges, most of them malformed, for every protocol: each gets one whole response, and no exception escapes."""

import gzip
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Sequence
from random import Random
from typing import Final

from accord_rpc.protocols.connect.protocol import ConnectProtocol
from accord_rpc.protocols.dispatch import Dispatcher
from accord_rpc.protocols.grpc import GrpcProtocol
from accord_rpc.protocols.grpc_web import GrpcWebProtocol
from accord_rpc.server.exchange import Exchange, Headers
from tests.rpc.protocols.faces import KEY, SERVICE, Chains, Service, pb

EXCHANGES: Final = 5_000
_METHODS: Final = (*(b"POST",) * 8, b"GET", b"HEAD", b"OPTIONS", b"PUT")
_NAMES: Final = (b"GetText", b"SendText", b"ListTexts", b"JoinTexts", b"EchoTexts", b"NoSuchMethod", b"\xff%00")
_PARAMETERS: Final = (
    *(b"encoding=json", b"encoding=proto", b"encoding=\xff", b"message=%7B%7D", b"message", b"message=%ff%zz"),
    *(b"base64=1", b"compression=gzip", b"connect=v1", b"x=1", b"=%", b""),
)
_KINDS: Final = (
    *(b"application/json", b"application/json;charset=utf-8", b"application/proto", b"text/plain", b""),
    *(b"application/connect+json", b"application/connect+proto", b"application/grpc"),
    *(b"application/grpc-web", b"application/grpc-web-text", b"application/grpc-web+proto"),
)
_HEADERS: Final = (
    *(b"content-encoding", b"connect-content-encoding", b"grpc-encoding", b"accept-encoding"),
    *(b"connect-timeout-ms", b"grpc-timeout", b"connect-protocol-version", b"connect-accept-encoding"),
    *(b"x-data-bin", b"cookie", b"te", b"x-request-id"),
)
_VALUES: Final = (
    *(b"gzip", b"identity", b"br", b"gzip;q=0, *", b"1", b"1000", b"-1", b"9" * 30, b"1S", b""),
    *(b"\xff\xfe", b"trailers", b"a=b", b"/wA", b"?"),
)


class RecordedExchange(Exchange):
    """Fails if the protocol does not send exactly one response."""

    __slots__ = ("_parts", "_started", "body", "finished", "status")

    def __init__(self, method: bytes, target: bytes, headers: Headers, parts: Sequence[bytes], version: int) -> None:
        self.method, self.target, self.headers, self.http_version = method, target, headers, version
        self.authority, self.secure, self.peer, self.peer_uris = b"localhost", False, "unix:", ()
        self._parts = list(parts)
        self._started = self.finished = False
        self.status, self.body = 0, b""

    @property
    def request_ended(self) -> bool:
        return not self._parts

    @property
    def started(self) -> bool:
        return self._started

    async def receive(self) -> bytes | None:
        return self._parts.pop(0) if self._parts else None

    def respond(self, status: int, headers: Headers, body: bytes = b"", trailers: Headers = ()) -> None:
        self.start(status, headers)
        self.finish(body, trailers)

    def start(self, status: int, headers: Headers) -> None:
        assert not self._started
        assert all(name.islower() and b"\n" not in value for name, value in headers)
        self._started, self.status = True, status

    async def send(self, data: bytes) -> None:
        assert self._started
        assert not self.finished
        self.body += data

    def finish(self, data: bytes = b"", trailers: Headers = ()) -> None:
        assert self._started
        assert not self.finished
        self.finished = True
        self.body += data

    def reset(self) -> None:
        raise AssertionError("the response was broken off")


def _exchanges(random: Random) -> Iterator[RecordedExchange]:
    for _ in range(EXCHANGES):
        method, target = random.choice(_METHODS), f"/{SERVICE}/".encode() + random.choice(_NAMES)
        if method in (b"GET", b"HEAD") or random.random() < 0.1:
            target += b"?" + b"&".join(random.choices(_PARAMETERS, k=random.randrange(5)))
        headers = [(b"authorization", KEY.encode())] if random.random() < 0.9 else []
        headers.append((b"content-type", random.choice(_KINDS)))
        headers += [(random.choice(_HEADERS), random.choice(_VALUES)) for _ in range(random.randrange(4))]
        parts = [_body(random) for _ in range(random.randrange(3))]
        yield RecordedExchange(method, target, headers, parts, random.choice((1, 2)))


def _body(random: Random) -> bytes:
    act = random.choice(("", "refuse", "trailers", "large"))
    request = pb.TextRequest(text="a", act=act).SerializeToString()
    body = random.choice((b"", b"{}", b'{"text": "a"}', b"[", request, random.randbytes(random.randrange(30))))
    if random.random() < 0.3:
        body = gzip.compress(body)
    if random.random() < 0.5:
        body = bytes([random.choice((0, 0, 0, 1, 2, 128))]) + len(body).to_bytes(4, "big") + body
    if random.random() < 0.2:
        body = body[: random.randrange(len(body) + 1)]
    return b64encode(body) if random.random() < 0.2 else body


async def test_every_exchange_gets_one_response_and_none_is_a_fault_of_the_server() -> None:
    chains = Chains(Service())
    serve = Dispatcher([GrpcProtocol(chains), GrpcWebProtocol(chains), ConnectProtocol(chains, chains.methods)])
    statuses: Counter[int] = Counter()
    for exchange in _exchanges(Random(9)):
        await serve(exchange)
        assert exchange.finished
        statuses[exchange.status] += 1
    assert statuses.keys() == {200, 204, 400, 401, 404, 405, 415, 501, 505}
