"""The commands of docs/protocols.md print what the page shows, and its table of errors is that of the code."""

import re
import shutil
import subprocess
from pathlib import Path

import grpc
import pytest
from google.rpc.status_pb2 import Status

from accord_gateway.settings import Settings
from accord_rpc.protocols.http_errors import http_status
from tests.gateway.conftest import Start, database_url, start

__all__ = ["database_url", "start"]

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/protocols.md").read_text()
BROWSERS = "\n## Browsers\n"
SHOWN = re.compile(r"^```sh\n(.*?)^```\n(?:\n```\n(.*?)^```\n)?", flags=re.MULTILINE | re.DOTALL)
MARK = "== end of the block =="


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_commands_print_what_the_page_shows(start: Start, database_url: str, tmp_path: Path) -> None:
    """The section about browsers needs other settings, for which a second gateway serves the same database."""
    plain = start(DATABASE_URL=database_url, SERVER="accord").address
    cookies = start(DATABASE_URL=database_url, SERVER="accord", **settings_of_the_page()).address
    before, _, after = PAGE.partition(BROWSERS)
    commands = [*SHOWN.findall(before), (f"URL=http://{cookies}", ""), *SHOWN.findall(after)]
    script = "\n".join(f"{command}\necho\necho '{MARK}'" for command, _ in commands)
    script = script.replace("127.0.0.1:50051", plain).replace(".venv/bin/", f"{ROOT}/.venv/bin/")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    printed = done.stdout.split(MARK)
    assert len([shown for _, shown in commands if shown]) > 12
    for (command, shown), output in zip(commands, printed, strict=False):
        assert missing_lines(shown, output) == [], f"{command}\nprinted\n{output}"


def settings_of_the_page() -> dict[str, str]:
    [block] = re.findall(r"^```\n((?:[A-Z_]+=.*\n)+)```", PAGE, flags=re.MULTILINE)
    settings = dict(line.split("=", 1) for line in block.splitlines())
    assert {name.lower() for name in settings} <= Settings.model_fields.keys()
    return settings


def missing_lines(shown: str, output: str) -> list[str]:
    """The lines that the output does not have, in the order of the page. `…` stands for any text."""
    printed = iter(output.replace("\r", "").splitlines())
    patterns = [".*".join(map(re.escape, line.split("…"))) for line in shown.splitlines()]
    return [pattern for pattern in patterns if not any(re.fullmatch(pattern, line) for line in printed)]


def test_table_of_errors_equals_that_of_the_code() -> None:
    rows = re.findall(r"^\| ([A-Z_, ]+) \| (\d+)", PAGE, flags=re.MULTILINE)
    shown = {code: int(status) for codes, status in rows for code in codes.split(", ")}
    numbers = {code.name: code.value[0] for code in grpc.StatusCode if code is not grpc.StatusCode.OK}
    assert shown == {name: http_status(Status(code=number)) for name, number in numbers.items()}


def test_every_page_of_the_gateway_is_listed() -> None:
    """The provider's pages are described with browsers."""
    source = (ROOT / "services/gateway/accord_gateway/server/pages.py").read_text()
    served = set(re.findall(r'"(/(?:[a-z.-]+)(?:/[a-z.-]+)?)"', source)) | {"/docs"}
    listed = set(re.findall(r"^\| `(/\S+)` \|", PAGE, flags=re.MULTILINE))
    assert listed == served
