"""The log on standard output: one line for each event."""

import json
import subprocess
import sys
from pathlib import Path

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
