"""Every limit of a connection. The defaults are for servers on the internet."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Times are in seconds. They are checked once per `Server.TICK`, so that no exchange needs a timer."""

    connections: int = 10_000
    """Open connections of this process. Further ones are closed at once."""
    connections_per_address: int = 1_000
    """Of one client address (an IPv6 address counts as its /64). Unix sockets and trusted proxies have no limit of their own."""

    handshake_seconds: float = 5.0
    """From the connection to its first request line or HTTP/2 SETTINGS, TLS included."""
    header_seconds: float = 5.0
    """From the first byte of the headers of a request to the last one."""
    header_bytes: int = 16 * 1024
    """Headers of one request. HTTP/2 counts 32 bytes more for each (RFC 9113, section 6.5.2), HTTP/1.1 four: `: ` and the line break."""
    header_count: int = 100
    """Headers of one request."""
    target_bytes: int = 8 * 1024
    """The path and query of an HTTP/1.1 request. HTTP/2 counts them as a header."""
    chunk_line_bytes: int = 256
    """The size and extensions of one chunk of an HTTP/1.1 body."""

    idle_seconds: float = 15 * 60.0
    """An HTTP/2 connection without exchanges is closed."""
    idle_seconds_http1: float = 75.0
    """An HTTP/1.1 connection without exchanges is closed."""
    age_seconds: float = 30 * 60.0
    """Older connections accept no more exchanges, so that clients reconnect and spread over newer workers and machines."""
    age_grace_seconds: float = 60.0
    """Exchanges of a connection that is too old are cancelled after this time."""
    write_stall_seconds: float = 20.0
    """A connection whose client reads nothing of what waits for it is closed."""
    goaway_seconds: float = 1.0
    """An HTTP/2 client that has not acknowledged the first GOAWAY after this time gets the last one nevertheless."""
    linger_seconds: float = 2.0
    """How long an HTTP/1.1 client that still sends may read the last response: closing earlier would make TCP discard it."""

    keepalive_seconds: float = 2 * 60.0
    """A ping is sent to an HTTP/2 client that has sent nothing for so long."""
    keepalive_timeout_seconds: float = 20.0
    """The time to acknowledge it."""
    pings_per_minute: int = 20
    """Pings and SETTINGS that a client may send while it exchanges nothing. More close the connection (ENHANCE_YOUR_CALM)."""
    overhead_bytes: int = 256 * 1024
    """Bytes of frames that carry nothing (WINDOW_UPDATE, PRIORITY, empty DATA, padding, unknown types) that an HTTP/2 client may send
    beyond those that its requests and the responses account for. More close the connection (ENHANCE_YOUR_CALM)."""

    streams: int = 100
    """Concurrent exchanges of one HTTP/2 connection (SETTINGS_MAX_CONCURRENT_STREAMS)."""
    resets: int = 1_000
    """Streams that a client may reset at once. grpcio resets each call that is refused before its last message."""
    resets_per_second: int = 200
    """Streams that a client may reset for longer."""
    continuation_frames: int = 8
    """CONTINUATION frames of one header block."""
    settings_entries: int = 32
    """Entries of one SETTINGS frame."""
    unsent_acknowledgements: int = 100
    """PING and SETTINGS acknowledgements that wait for a client that does not read."""

    stream_window: int = 64 * 1024
    """Bytes of a request body that may arrive before the application reads them (SETTINGS_INITIAL_WINDOW_SIZE)."""
    connection_window: int = 1024 * 1024
    """The same, for all streams of a connection."""
    write_buffer: int = 64 * 1024
    """Bytes of a response that wait for the client before `Exchange.send` waits too."""
    unsent_bytes: int = 256 * 1024 * 1024
    """Responses that wait for the clients of this process. Connections with the most are closed until half of it is left: otherwise
    clients that read nothing could exhaust the memory within `write_stall_seconds`."""
