"""Sends mutated connections to a server in another process: `python -m tests.rpc.server.fuzz_connections 100000`.

The server must not crash, hang or leak, must log no exception, and must serve a valid request after each thousand connections. Each
connection is determined by --seed and its number: `--only NUMBER` sends one again, and prints it."""

import argparse
import asyncio
import json
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from tempfile import TemporaryFile
from time import monotonic
from typing import Final

import h2.events
from h2.config import H2Configuration
from h2.connection import H2Connection

from tests.rpc.server import fuzz_seeds

ROOT: Final = Path(__file__).parents[3]
CONCURRENT: Final = 50  # connections
CHECKED_EVERY: Final = 1000  # connections
SECONDS: Final = 5.0  # within which a valid request is answered, and a connection that was left is gone
# What may stay in memory after the first thousands of connections: caches, and pages that the allocator keeps.
KEPT_KIB: Final = 8 * 1024
KEPT_OBJECTS: Final = 2000

BYTES: Final = (
    b"\0",
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b":",
    b";",
    b"-1",
    b"0",
    b"ffffffffffffffff",
    b"\xff",
    b"\x7f",
)
LINES: Final = (
    b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"Content-Length: 18446744073709551615\r\n", b"Host: b\r\n",
    b"Expect: 100-continue\r\n", b"Connection: close\r\n", b" folded\r\n", b"X: " + b"y" * 20_000 + b"\r\n", b"0\r\n\r\n", b"\r\n",
)  # fmt: skip
NUMBERS: Final = (0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 127, 128, 255)


class Found(Exception):
    """What the server did wrong."""


@dataclass
class Connection:
    """What is sent, in writes, and how the client ends."""

    writes: list[bytes]
    ending: str
    patience: float  # seconds to wait for a response

    def __str__(self) -> str:
        return f"{self.ending} after {self.patience:.3f} s: {self.writes}"


@dataclass
class Summary:
    connections: int = 0
    responded: int = 0
    refused: int = 0
    seconds: float = 0.0
    figures: list[dict[str, int]] = field(default_factory=list)

    def __str__(self) -> str:
        first, last = self.figures[0], self.figures[-1]
        return (
            f"{self.connections:,} connections in {self.seconds:.0f} s: {self.responded:,} got bytes back, {self.refused:,} were reset, "
            f"{last['served']:,} exchanges.\nResident {first['resident_kib']:,} → {last['resident_kib']:,} KiB, objects {first['objects']:,} → {last['objects']:,},"
            f" tasks {first['tasks']} → {last['tasks']}, connections {first['connections']} → {last['connections']}."
        )


# --- mutations ---
def make(seed: int, number: int, corpus: list[list[bytes]]) -> Connection:
    chance = random.Random(f"{seed} {number}")
    parts = list(chance.choice(corpus))
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3, 5, 10))):
        chance.choice((change_bytes, change_bytes, change_parts, change_parts, change_frame))(chance, parts, corpus)
    data = b"".join(parts)[:300_000]
    ending = chance.choice(("close", "close", "abort", "half-close", "unread"))
    patience = chance.choice((0.0, 0.01, 0.05, 0.05, 0.1))
    return Connection(list(pieces(chance, data)), ending, patience)


def pieces(chance: random.Random, data: bytes) -> Iterator[bytes]:
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.choice((0, 0, 0, 1, 2, 8))))
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        yield data[start:end]


def change_bytes(chance: random.Random, parts: list[bytes], corpus: list[list[bytes]]) -> None:
    if not parts:
        return
    index = chance.randrange(len(parts))
    part = bytearray(parts[index])
    start = chance.randrange(len(part) + 1)
    end = min(len(part), start + chance.choice((1, 1, 2, 4, 16)))
    match chance.randrange(5):
        case 0:
            part[start:end] = chance.randbytes(end - start)
        case 1:
            del part[start:end]
        case 2:
            part[start:start] = chance.choice(BYTES) * chance.choice((1, 1, 2, 100))
        case 3:
            part[start:start] = part[start:end] * chance.choice((1, 2, 50, 1000))
        case _ if start < len(part):
            part[start] ^= 1 << chance.randrange(8)
    parts[index] = bytes(part)


def change_parts(chance: random.Random, parts: list[bytes], corpus: list[list[bytes]]) -> None:
    index = chance.randrange(len(parts) + 1)
    other = chance.choice(chance.choice(corpus))
    match chance.randrange(6):
        case 0:
            del parts[index : index + chance.choice((1, 1, 2, 100))]
        case 1:
            parts[index:index] = parts[index : index + chance.choice((1, 2, 4))] * chance.choice((1, 2, 30, 300))
        case 2:
            parts.insert(index, other)
        case 3:
            parts.insert(index, chance.choice(LINES))
        case 4:
            chance.shuffle(parts)
        case _:
            parts[index:] = [b"".join(parts[index:])[: chance.randrange(1, 50)]]


def change_frame(chance: random.Random, parts: list[bytes], corpus: list[list[bytes]]) -> None:
    """Of HTTP/2; in HTTP/1.1 it changes some bytes of a line."""
    if not parts:
        return
    index = chance.randrange(len(parts))
    frame = bytearray(parts[index].ljust(fuzz_seeds.FRAME_HEAD, b"\0"))
    match chance.randrange(5):
        case 0:
            frame[2] = chance.choice(NUMBERS)  # length
        case 1:
            frame[3] = chance.choice(NUMBERS)  # type
        case 2:
            frame[4] = chance.choice(NUMBERS)  # flags
        case 3:
            frame[8] = chance.choice(NUMBERS)  # stream
        case _:
            frame[0:3] = (len(frame) - fuzz_seeds.FRAME_HEAD).to_bytes(3)
    parts[index] = bytes(frame)


# --- the client ---
async def play(port: int, connection: Connection, summary: Summary) -> None:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
    except OSError as error:
        raise Found(f"The server accepts no connection: {error}") from None
    summary.connections += 1
    try:
        for part in connection.writes:
            if not writer.transport.is_closing():
                writer.write(part)
            await asyncio.sleep(0)
        if connection.ending == "half-close":
            writer.write_eof()
        if connection.ending != "unread":
            async with asyncio.timeout(connection.patience):
                data = await reader.read(65_536)
                summary.responded += bool(data)
                while data:
                    data = await reader.read(65_536)
    except TimeoutError:
        pass
    except OSError:
        summary.refused += 1
    finally:
        writer.transport.abort() if connection.ending == "abort" else writer.close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(SECONDS):
                await writer.wait_closed()
        writer.transport.abort()


async def require_valid_requests(port: int) -> None:
    try:
        async with asyncio.timeout(SECONDS):
            await asyncio.gather(get_over_http1(port, "/echo"), post_over_http2(port))
    except TimeoutError:
        raise Found("A valid request is not answered any more.") from None
    except OSError as error:
        raise Found(f"A valid request fails: {error!r}") from None


async def get_over_http1(port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    if not head.startswith(b"HTTP/1.1 200 "):
        raise Found(f"A valid request over HTTP/1.1 got {head!r}.")
    return body


async def post_over_http2(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    connection = H2Connection(H2Configuration(client_side=True))
    connection.initiate_connection()
    connection.send_headers(1, [(":method", "POST"), (":path", "/echo"), (":scheme", "http"), (":authority", "a")])
    connection.send_data(1, b"hello", end_stream=True)
    body = b""
    while True:
        writer.write(connection.data_to_send())
        data = await reader.read(65_536)
        if not data:
            raise Found("A valid connection over HTTP/2 was closed.")
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                body += event.data
            elif isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                raise Found(f"A valid request over HTTP/2 got {event}.")
            elif isinstance(event, h2.events.StreamEnded):
                writer.close()
                if body != b"hello":
                    raise Found(f"A valid request over HTTP/2 got the body {body!r}.")
                return


async def figures(port: int) -> dict[str, int]:
    """When the connections that were left are gone."""
    until = monotonic() + SECONDS
    while True:
        found: dict[str, int] = json.loads(await get_over_http1(port, "/figures"))
        if found["connections"] == found["exchanges"] == 1:
            return found
        if monotonic() > until:
            raise Found(f"Connections stay: {found}")
        await asyncio.sleep(0.05)


# --- the run ---
async def run(port: int, seed: int, numbers: range, summary: Summary) -> None:
    corpus = fuzz_seeds.seeds()
    remaining = iter(numbers)
    started = monotonic()

    async def play_some(some: Iterator[int]) -> None:
        for number in some:
            await play(port, make(seed, number, corpus), summary)

    for _ in range(0, len(numbers), CHECKED_EVERY):
        some = islice(remaining, CHECKED_EVERY)
        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENT):
                group.create_task(play_some(some))
        await require_valid_requests(port)
        summary.figures.append(await figures(port))
    summary.seconds = monotonic() - started


def require_no_leak(summary: Summary) -> None:
    """Compares the end with the first tenth, when the caches are full."""
    first, last = summary.figures[len(summary.figures) // 10], summary.figures[-1]
    if last["tasks"] > first["tasks"]:
        raise Found(f"Tasks stay: {first['tasks']} → {last['tasks']}")
    if last["objects"] - first["objects"] > KEPT_OBJECTS:
        raise Found(f"Objects stay: {first['objects']} → {last['objects']}")
    if last["resident_kib"] - first["resident_kib"] > KEPT_KIB:
        raise Found(f"Memory stays: {first['resident_kib']} → {last['resident_kib']} KiB")


@contextmanager
def server_process() -> Iterator[int]:
    """Its port. Raises Found if it ends, or logs an exception."""
    with TemporaryFile() as log, socket.create_server(("127.0.0.1", 0)) as listener:
        descriptor = listener.fileno()
        process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-m", "tests.rpc.server.trivial_server", str(descriptor)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=[descriptor],
        )
        try:
            yield listener.getsockname()[1]
        finally:
            ended = end(process)
            log.seek(0)
            written = log.read().decode(errors="replace")
        if ended or written:
            raise Found(f"The server ended with {ended}. Its log:\n{written[-5000:]}")


def end(process: subprocess.Popen[bytes]) -> int:
    try:
        process.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
    return process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("connections", type=int, nargs="?", default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int)
    chosen = parser.parse_args()
    limit = getrlimit(RLIMIT_NOFILE)[1]
    setrlimit(RLIMIT_NOFILE, (limit, limit))
    numbers = range(chosen.connections) if chosen.only is None else range(chosen.only, chosen.only + 1)
    if chosen.only is not None:
        print(make(chosen.seed, chosen.only, fuzz_seeds.seeds()))
    summary = Summary()
    problems: list[str] = []
    try:
        with server_process() as port:
            asyncio.run(run(port, chosen.seed, numbers, summary))
        require_no_leak(summary)
    except* Found as found:
        problems += map(str, found.exceptions)
    if summary.figures:
        print(summary)
    if problems:
        sys.exit(f"After {summary.connections:,} connections with seed {chosen.seed}:\n" + "\n".join(problems))


if __name__ == "__main__":
    main()
