"""The log on standard output: one line for each event."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from select import PIPE_BUF

import pytest

LOGGING = """
import logging, warnings
import structlog
from accord_gateway import logs, output
from accord_gateway.settings import Settings

output.tolerate_failures()
logs.configure(Settings(log_format="{format}", log_level="info"))
log = structlog.get_logger()


def sign_in(password):
    raise ValueError("no")


log.debug("below the level")
log.info("call", peer="a\\nb", raw=b"\\xff", seen={{1, 2}})
log.info("odd", path="\\udcff", large=2**64, by_number={{1: "one"}})
try:
    sign_in("correct horse" + " battery")
except ValueError:
    log.exception("fault")
logging.getLogger("psycopg.pool").warning("could not %s", "connect\\nat all")
warnings.warn("old", stacklevel=1)
"""


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_full_disk_loses_lines_and_nothing_else(log_format: str) -> None:
    """A log line that cannot be written must not fail a call."""
    script = LOGGING.format(format=log_format) + "log.info('filler', text='x' * 100_000)\nsys.stderr.write('served')\n"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", f"import sys{script}"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert done.stderr.startswith("served")


def lines(log_format: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", LOGGING.format(format=log_format)], capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_every_event_is_one_line_of_json() -> None:
    events = [json.loads(line) for line in lines("json")]
    assert [event["event"] for event in events[:4]] == ["call", "odd", "fault", "could not connect\nat all"]
    assert {"level", "timestamp"} <= events[0].keys()
    assert events[0]["peer"] == "a\nb"
    assert events[1]["path"] == "\udcff"
    assert events[1]["large"] == 2**64
    assert events[3]["logger"] == "psycopg.pool"
    assert events[4]["logger"] == "py.warnings"


def test_a_fault_is_logged_with_its_traceback_and_no_value_of_a_variable() -> None:
    for log_format in ("json", "console"):
        written = "\n".join(lines(log_format))
        assert "ValueError: no" in written
        assert "in sign_in" in written
        assert "correct horse battery" not in written


def test_a_value_from_a_caller_cannot_forge_a_console_line() -> None:
    assert not any(line.startswith("b") for line in lines("console"))


TURNS = """
import asyncio, os, sys, threading
import structlog
from accord_gateway import logs, output
from accord_gateway.settings import Settings

output.tolerate_failures()
logs.configure(Settings(log_format="json", log_level="info"))
log = structlog.get_logger()


def many(name, number):
    for place in range(number):
        log.info(name, place=place, padding="x" * 200)


async def turns():
"""
END_OF_LOOP = """
try:
    asyncio.run(turns())
except RuntimeError:
    log.info("after")
"""


def writes(body: str) -> list[bytes]:
    """What each write of the program had: standard output is a socket that keeps them apart."""
    reading, written = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    reading.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024 * 1024)
    reading.setblocking(False)
    with reading, written:
        subprocess.run(
            [sys.executable, "-c", TURNS + body + END_OF_LOOP], stdout=written.fileno(), check=True, timeout=60
        )
        found = []
        while True:
            try:
                found.append(reading.recv(1024 * 1024))
            except BlockingIOError:
                return found


def places(pieces: list[bytes], event: str) -> list[int]:
    lines = [json.loads(line) for line in b"".join(pieces).splitlines()]
    return [line["place"] for line in lines if line["event"] == event]


def test_lines_of_one_turn_of_the_event_loop_are_one_write() -> None:
    pieces = writes(
        "    many('first', 3)\n    await asyncio.sleep(0)\n    await asyncio.sleep(0)\n    many('second', 2)\n"
    )
    assert [piece.count(b"\n") for piece in pieces] == [3, 2]


def test_a_write_has_whole_lines_that_do_not_mix_with_those_of_other_processes() -> None:
    pieces = writes("    many('call', 50)\n")
    assert all(piece.endswith(b"\n") and len(piece) <= PIPE_BUF for piece in pieces)
    assert places(pieces, "call") == list(range(50))


def test_a_process_that_is_killed_loses_one_write_at_most() -> None:
    found = places(writes("    many('call', 50)\n    os._exit(0)\n"), "call")
    assert found == list(range(len(found)))
    assert len(found) >= 50 - PIPE_BUF // 200


def test_an_event_loop_that_ends_with_an_error_loses_no_line() -> None:
    pieces = writes("    many('call', 3)\n    raise RuntimeError\n")
    assert places(pieces, "call") == [0, 1, 2]
    assert b"after" in pieces[-1]


def test_lines_of_other_threads_are_whole_and_complete() -> None:
    body = """    threads = [threading.Thread(target=many, args=(f"thread {each}", 20)) for each in range(3)]
    for each in threads:
        each.start()
    many("loop", 20)
    await asyncio.to_thread(lambda: [each.join() for each in threads])
"""
    done = subprocess.run(
        [sys.executable, "-c", TURNS + body + END_OF_LOOP], stdout=subprocess.PIPE, check=True, timeout=60
    )
    for name in ("loop", "thread 0", "thread 1", "thread 2"):
        assert places([done.stdout], name) == list(range(20))
