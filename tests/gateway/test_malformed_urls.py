"""No command prints a password of DATABASE_URL or DATABASE_DIRECT_URL, however the URL is malformed."""

import json
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import pytest

from tests.db.programs import MALFORMED_URLS, PASSWORD
from tests.gateway.conftest import environment

# Each run is a separate process, forked from one that has imported the commands: the imports take most of the time.
RUN_EACH = """
import json, os, sys
from accord_gateway import settings, startup
from accord_gateway.__main__ import main
from accord_gateway.cli.doctor import installation

installation.findings = lambda: iter(())  # takes seconds, and checks packages only

for number, (command, variables) in enumerate(json.load(sys.stdin)):
    child = os.fork()
    if child == 0:
        output = os.open(f"output-{number}", os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.update(variables)
        status = 99
        try:
            status = main([command])
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

DEVELOPMENT = {"ACCORD_ENV": "development"}
PRODUCTION = {
    "ACCORD_ENV": "production",
    "SECRET_KEY": "0123456789abcdef-0123456789abcdef",
    "ENCRYPTION_KEYS": f"1:{b64encode(bytes(range(32))).decode()}",
    "SMTP_URL": "smtps://smtp.example.com",
    "MAIL_FROM": "accounts@example.com",
    "APP_URL": "https://app.example.com",
    "WORKERS": "1",
}


def test_table_has_malformed_urls() -> None:
    assert len(MALFORMED_URLS) > 30
    assert all(PASSWORD in url for url in MALFORMED_URLS)


@pytest.mark.parametrize("variables", [DEVELOPMENT, PRODUCTION], ids=["development", "production"])
@pytest.mark.parametrize("command", ["serve", "migrate", "doctor"])
def test_no_command_prints_the_password_of_a_malformed_url(
    tmp_path: Path, command: str, variables: dict[str, str]
) -> None:
    urls = [{"DATABASE_URL": url, "DATABASE_DIRECT_URL": url} for url in MALFORMED_URLS]
    runs = [(command, variables | {"DB_START_WAIT": "0s"} | url) for url in urls]
    driver = subprocess.run(
        [sys.executable, "-c", RUN_EACH],
        cwd=tmp_path,
        env=environment({}),
        input=json.dumps(runs),
        capture_output=True,
        text=True,
        timeout=300,
    )
    statuses = driver.stdout.split()
    assert len(statuses) == len(urls), driver.stderr
    for number, (url, status) in enumerate(zip(MALFORMED_URLS, statuses, strict=True)):
        output = (tmp_path / f"output-{number}").read_text()
        assert "DATABASE_URL" in output, (url, output)
        assert status in ("1", "2"), (url, output)
        assert PASSWORD not in output, url
        assert "Traceback" not in output, (url, output)
