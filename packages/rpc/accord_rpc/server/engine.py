"""The HTTP/2 engine: frames, header compression, flow control and stream states. Only this module imports ngh2 (libnghttp2).

It performs no input or output. `receive` reports what a client sent to `Events`; `take` returns the bytes to send."""

from contextlib import suppress
from functools import cache
from typing import Any, Final, Protocol

from ngh2 import (
    Configuration,
    Connection,
    DataReceived,
    GoAwayReceived,
    NGH2Error,
    PingAcknowledged,
    PingReceived,
    RequestReceived,
    Role,
    Setting,
    SettingsReceived,
    StreamClosed,
    TrailersReceived,
)

from accord_rpc.server.exchange import Headers
from accord_rpc.server.limits import ConnectionLimits

NO_ERROR: Final = 0x0
PROTOCOL_ERROR: Final = 0x1
INTERNAL_ERROR: Final = 0x2
REFUSED_STREAM: Final = 0x7
CANCEL: Final = 0x8
ENHANCE_YOUR_CALM: Final = 0xB


class Broken(Exception):
    """The connection has ended, because the client violated HTTP/2 or a limit. `take` may still return a GOAWAY frame."""


class Events(Protocol):
    """What a client does. Not called from within other methods of the engine than `receive` and `report`."""

    def on_request(self, stream: int, headers: Headers, ended: bool) -> None:
        """`headers` begin with the pseudo-headers. `ended`: there is no body."""

    def on_data(self, stream: int, data: bytes, ended: bool) -> None: ...

    def on_end(self, stream: int) -> None:
        """The body ended with trailers."""

    def on_closed(self, stream: int) -> None:
        """Both sides have ended, or one has reset the stream."""

    def on_ping(self) -> None: ...

    def on_pong(self, data: bytes) -> None:
        """The client has acknowledged the ping with this data, and so everything that was sent before it."""

    def on_settings(self) -> None: ...

    def on_goaway(self) -> None:
        """The client starts no further stream."""


class Engine:
    """One connection, on the server's side. Methods for a stream have no effect after its end."""

    __slots__ = ("_events", "_http")

    def __init__(self, events: Events, limits: ConnectionLimits) -> None:
        self._events: Events | None = events
        self._http = http = Connection(Role.SERVER, _configuration(limits))
        http.initiate_connection(
            {
                Setting.MAX_CONCURRENT_STREAMS: limits.streams,
                Setting.MAX_HEADER_LIST_SIZE: limits.header_bytes,
                Setting.INITIAL_WINDOW_SIZE: limits.stream_window,
            }
        )
        http.set_local_window_size(limits.connection_window)

    def receive(self, data: bytes) -> bool:
        """Whether the data completed anything. Raises Broken after the events that came before the fault."""
        try:
            self._http.receive_data(data)
        except NGH2Error as error:
            self.report()
            raise Broken(str(error)) from None
        return self.report()

    def queued(self, stream: int) -> int:
        """The bytes of a stream that wait for the client's window."""
        return self._http.queued_body_size(stream)

    def take(self, most: int | None = None) -> bytes:
        """At most so many bytes to send. Empty if there are none, or the connection is broken."""
        try:
            return self._http.data_to_send(most)
        except NGH2Error:
            return b""

    def report(self) -> bool:
        """Reports the streams that ended because `take` returned their last frame. Returns whether there was any event."""
        events = self._events
        if events is None:
            return False
        event: Any = None  # a check of its class would take longer than that of its type
        for event in self._http.events():
            kind = type(event)
            if kind is RequestReceived:
                events.on_request(event.stream_id, event.headers, event.end_stream)
            elif kind is DataReceived:
                events.on_data(event.stream_id, event.data, event.end_stream)
            elif kind is StreamClosed:
                events.on_closed(event.stream_id)
            elif kind in _RARE:
                _report_rare(events, event)
        return event is not None

    def detach(self) -> None:
        """Reports nothing any more, and forgets the connection."""
        self._events = None

    @property
    def wants_to_send(self) -> bool:
        return self._http.want_write

    @property
    def is_over(self) -> bool:
        """The engine has ended the connection, because the client violated HTTP/2, and everything is sent."""
        return not (self._http.want_read or self._http.want_write)

    def respond(self, stream: int, head: Headers, body: bytes, trailers: Headers) -> None:
        """A whole response."""
        http = self._http
        try:  # `suppress` takes as long as one of these, here and in `consumed`
            if trailers:
                http.send_response(stream, head)
                if body:
                    http.send_data(stream, body)
                http.send_trailers(stream, trailers)
            elif body:
                http.send_response(stream, head)
                http.send_data(stream, body, end_stream=True)
            else:
                http.send_response(stream, head, end_stream=True)
        except NGH2Error:
            return  # the stream or the connection ended first

    def start(self, stream: int, head: Headers) -> None:
        with suppress(NGH2Error):
            self._http.send_response(stream, head)

    def send(self, stream: int, data: bytes) -> None:
        with suppress(NGH2Error):
            self._http.send_data(stream, data)

    def finish(self, stream: int, data: bytes, trailers: Headers) -> None:
        http = self._http
        with suppress(NGH2Error):
            if trailers:
                if data:
                    http.send_data(stream, data)
                http.send_trailers(stream, trailers)
            else:
                http.send_data(stream, data, end_stream=True)

    def reset(self, stream: int, code: int) -> None:
        with suppress(NGH2Error):
            self._http.reset_stream(stream, code)

    def consumed(self, stream: int, size: int) -> None:
        """The client may send as many bytes more."""
        try:
            self._http.acknowledge_received_data(size, stream)
        except NGH2Error:
            return

    def ping(self, data: bytes) -> None:
        """`data` are eight bytes."""
        with suppress(NGH2Error):
            self._http.ping(data)

    def announce_shutdown(self) -> None:
        """A GOAWAY that lets the client know, while streams that are on their way are still accepted."""
        with suppress(NGH2Error):
            self._http.send_shutdown_notice()

    def refuse_streams(self) -> None:
        """A GOAWAY with the last stream that was accepted."""
        with suppress(NGH2Error):
            self._http.send_goaway()

    def terminate(self, code: int) -> None:
        with suppress(NGH2Error):
            self._http.terminate_connection(code)


def _report_rare(events: Events, event: Any) -> None:
    match event:
        case TrailersReceived():
            events.on_end(event.stream_id)
        case PingReceived():
            events.on_ping()
        case PingAcknowledged():
            events.on_pong(event.opaque_data)
        case SettingsReceived():
            events.on_settings()
        case GoAwayReceived():
            events.on_goaway()


_RARE: Final = frozenset({TrailersReceived, PingReceived, PingAcknowledged, SettingsReceived, GoAwayReceived})


@cache
def _configuration(limits: ConnectionLimits) -> Configuration:
    return Configuration(
        auto_window_update=False,
        # ngh2 ends the connection at its limits. Requests with less get a response (see `Http2Connection`).
        max_inbound_header_list_size=4 * limits.header_bytes,
        max_inbound_header_count=4 * limits.header_count,
        max_continuations=limits.continuation_frames,
        max_settings=limits.settings_entries,
        max_outbound_ack=limits.unsent_acknowledgements,
        # Headers that repeat are sent again. To find and to keep them takes 2 µs a call and 1 KiB a connection.
        max_deflate_dynamic_table_size=0,
        stream_reset_rate_limit=(limits.resets, limits.resets_per_second),
    )
