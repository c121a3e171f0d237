"""HTTP/1.1 connections: one exchange at a time, in the order of the requests.

While an exchange is served, what the client sends waits unparsed, up to a limit after which the connection is not read. An idle
connection holds no parser, no buffer and no timer."""

import asyncio
from contextlib import suppress
from random import uniform

from accord_rpc.server.connection import Connection, Host, Peer
from accord_rpc.server.http1_bodies import Rejected, RequestBody
from accord_rpc.server.http1_exchange import Http1Exchange
from accord_rpc.server.http1_messages import (
    END_OF_HEAD,
    check_incomplete_head,
    parse_head,
    rejection,
    without_empty_lines,
)


class Http1Connection(Connection):
    __slots__ = (
        "_body",
        "_buffer",
        "_checked",
        "_deadline",
        "_exchange",
        "_lingers",
        "_reads",
        "_sent",
        "_sent_at",
        "_since",
        "_written",
        "draining",
        "stalled",
    )

    def __init__(self, host: Host, transport: asyncio.Transport, peer: Peer) -> None:
        super().__init__(host, transport, peer)
        now = host.loop.time()
        self.draining = False
        self.stalled = False  # more than `write_buffer` bytes wait for the client
        self._exchange: Http1Exchange | None = None
        self._body: RequestBody | None = None  # of the last request, until it has been read to its end
        self._buffer = b""  # what has arrived and was not read
        self._checked = 0  # bytes of an incomplete head
        self._reads = True
        self._lingers = False  # the last response was sent; whatever arrives is dropped
        self._since = now - uniform(0.0, 0.1) * host.limits.age_seconds  # noqa: S311  # so that clients do not all reconnect at once
        self._deadline = now + host.limits.header_seconds  # without meaning while an exchange is under way
        self._written = self._sent = 0
        self._sent_at = now  # when bytes were last seen to leave
        transport.set_write_buffer_limits(high=host.limits.write_buffer)

    @property
    def exchanges(self) -> int:
        return int(self._exchange is not None)

    @property
    def unsent(self) -> int:
        return self.transport.get_write_buffer_size()

    @property
    def body_has_arrived(self) -> bool:
        """Chunks count when they are taken."""
        return self._body is None or self._body.at_most(len(self._buffer))

    # --- called by the transport ---
    def data_received(self, data: bytes) -> None:
        if self._lingers:
            return
        self._buffer = self._buffer + data if self._buffer else data
        if self._exchange is None:
            self._proceed()
        else:
            self._exchange.wake()
            self._limit_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._end_exchange()
        self._lingers = True
        self._buffer = b""
        self.host.closed(self)

    def pause_writing(self) -> None:
        self.stalled = True

    def resume_writing(self) -> None:
        self.stalled = False
        if self._exchange is not None:
            self._exchange.wake()

    # --- requests ---
    def _proceed(self) -> None:
        """Drops what is left of the last request, then begins the next."""
        try:
            if self._body is not None:
                if not self._skip_body():
                    return
                self._deadline = self.host.loop.time() + self.host.limits.idle_seconds_http1
            self._begin()
        except Rejected as rejected:
            self._reject(rejected)

    def _begin(self) -> None:
        if not self._checked and self._buffer.startswith(b"\r"):
            self._buffer = without_empty_lines(self._buffer)
        end = self._buffer.find(END_OF_HEAD, max(0, self._checked - 3)) + len(END_OF_HEAD)
        if end < len(END_OF_HEAD):
            return self._wait_for_head()
        head, self._buffer, self._checked = self._buffer[:end], self._buffer[end:], 0
        request = parse_head(head, self.host.limits)
        self._body = request.body
        self._exchange = exchange = Http1Exchange(self, request)
        exchange.task = self.host.serve(exchange)
        exchange.task.add_done_callback(self._served)
        self._limit_reading()
        return None

    def _wait_for_head(self) -> None:
        if self._buffer in (b"", b"\r"):  # perhaps an empty line
            return
        if not self._checked:
            self._deadline = self.host.loop.time() + self.host.limits.header_seconds
        check_incomplete_head(self._buffer, self._checked, self.host.limits)
        self._checked = len(self._buffer)

    def take_body(self) -> bytes | None:
        """What has arrived of the body; None at its end. Cancels the exchange if the body is malformed."""
        if self._body is None:
            return None
        try:
            data, self._buffer = self._body.take(self._buffer)
        except Rejected as rejected:
            self._reject(rejected)
            return b""
        if self._body.ended:
            self._body = None
        self._limit_reading()
        return data or (None if self._body is None else b"")

    def _skip_body(self) -> bool:
        if self._body is not None:
            _, self._buffer = self._body.take(self._buffer)
            if self._body.ended:
                self._body = None
        return self._body is None

    def is_reusable(self, awaits_continue: bool) -> bool:
        """Whether another request can follow the response that is about to be sent: the rest of the body has arrived, or is short.
        A client that waits for 100 Continue may or may not send its body."""
        with suppress(Rejected):
            if self.draining or (awaits_continue and self._body is not None):
                return False
            return self._skip_body() or (self._body is not None and self._body.at_most(self.host.limits.stream_window))
        return False

    def _limit_reading(self) -> None:
        reads = len(self._buffer) <= self.host.limits.stream_window
        if reads != self._reads:
            self._reads = reads
            (self.transport.resume_reading if reads else self.transport.pause_reading)()

    # --- responses ---
    def write(self, data: bytes) -> None:
        self._written += len(data)
        self.transport.write(data)
        self.host.sent(len(data))

    def _served(self, task: "asyncio.Task[None]") -> None:
        exchange = self._exchange
        if exchange is None or exchange.task is not task:
            return
        if not exchange.finished:
            exchange.reset()
        elif exchange.keep_alive and self.is_reusable(exchange.awaits_continue):
            self._end_exchange()
            self._await_next()
        else:
            self._close(lingers=not exchange.is_last or self._body is not None or bool(self._buffer))

    def _await_next(self) -> None:
        limits = self.host.limits
        self._deadline = self.host.loop.time() + (limits.header_seconds if self._body else limits.idle_seconds_http1)
        self._limit_reading()
        if self._buffer:
            self._proceed()

    def _end_exchange(self) -> None:
        if self._exchange is not None:
            self._exchange.close()
            self._exchange = None

    def _reject(self, rejected: Rejected) -> None:
        exchange = self._exchange
        self._end_exchange()
        if exchange is not None and exchange.started and not exchange.finished:
            return self.transport.abort()
        if exchange is None or not exchange.started:
            self.write(rejection(rejected, self.host.own_headers.lines()))
        return self._close(lingers=True)

    def _close(self, *, lingers: bool) -> None:
        """Closing a socket while its client sends makes TCP drop a response that the client has not read: a connection that lingers
        ends only its own half first."""
        self._end_exchange()
        self._lingers, self._buffer, self._body, self._checked = True, b"", None, 0
        if not lingers:
            return self.transport.close()
        self._deadline = self.host.loop.time() + self.host.limits.linger_seconds
        self._limit_reading()
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
        return None

    # --- time ---
    def tick(self, now: float) -> None:
        limits, age = self.host.limits, now - self._since
        if self._reads_nothing(now) or age > limits.age_seconds + limits.age_grace_seconds:
            self.transport.abort()
        elif self._exchange is None and now > self._deadline:
            self._time_out()
        elif age > limits.age_seconds:
            self.drain()

    def _reads_nothing(self, now: float) -> bool:
        """Whether nothing of what waits for the client was sent for too long."""
        unsent = self.transport.get_write_buffer_size()
        sent = self._written - unsent
        if not unsent or sent > self._sent:
            self._sent, self._sent_at = sent, now
        return now - self._sent_at > self.host.limits.write_stall_seconds

    def _time_out(self) -> None:
        if self._checked:
            self._reject(Rejected(408, 4, "The headers did not arrive in time."))
        else:
            self.transport.close()

    def drain(self) -> None:
        """A request that has begun to arrive is still served."""
        self.draining = True
        if self._exchange is None and not self._checked and not self._lingers:
            self._close(lingers=self._body is not None)

    def abort(self) -> None:
        self.transport.abort()
