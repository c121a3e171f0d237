"""`.env` that cannot be read or parsed: every command prints one sentence with file and line, and no part of the line."""

import os
import subprocess
from pathlib import Path

import pytest

from accord_gateway.settings import Settings, SettingsError, read_settings
from tests.gateway.conftest import run_command

SECRET = "hunter2"
NOT_AN_ASSIGNMENT = "must be NAME=value, with every quote closed"


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def content(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


BROKEN = {
    "UTF-16": ("PORT=1\n".encode("utf-16"), "line 1", "is UTF-16: save the file as UTF-8"),
    "UTF-16, big-endian": (b"\xfe\xff" + "PORT=1\n".encode("utf-16-be"), "line 1", "is UTF-16"),
    "UTF-16 without a mark": ("PORT=1\n".encode("utf-16-le"), "line 1", "has a NUL character"),
    "Latin-1": (content("PORT=1", "") + "MAIL_FROM=Bücher <a@b.de>\n".encode("latin-1"), "line 3", "is not UTF-8"),
    "no equals sign": (content("PORT=1", f"SECRET_KEY {SECRET}"), "line 2", NOT_AN_ASSIGNMENT),
    "colon": (content("", "# keys", f"SECRET_KEY:{SECRET}"), "line 3", NOT_AN_ASSIGNMENT),
    "colon and equals sign": (content(f"SECRET_KEY:{SECRET}=="), "line 1", NOT_AN_ASSIGNMENT),
    "name alone": (content("PORT=1", "SECRET_KEY"), "line 2", NOT_AN_ASSIGNMENT),
    "value alone": (content("PORT=1", f"postgresql://ada:{SECRET}@db/accord"), "line 2", NOT_AN_ASSIGNMENT),
    "text behind a quote": (content(f'SECRET_KEY="a"{SECRET}'), "line 1", NOT_AN_ASSIGNMENT),
    "unclosed quote": (content("PORT=1", f"SECRET_KEY='{SECRET}", "WORKERS=2"), "line 2", NOT_AN_ASSIGNMENT),
    "unclosed quote before another": (content("", f'HOST="a{SECRET}', 'WORKERS="2"'), "line 2", NOT_AN_ASSIGNMENT),
    "unclosed quote that swallows a setting": (
        content("", "HOST='127.0.0.1", f"export SECRET_KEY={SECRET}'"),
        "line 2",
        "must close its quote",
    ),
    "unclosed quote of another program": (
        content("OTHER='1", f"SECRET_KEY={SECRET}'"),
        "line 1",
        "must close its quote: the value contains the settings of the lines below",
    ),
    "two lines": (content("PORT=1", "HOST='127.0.0.1", f"{SECRET}'"), "line 2", "must close its quote"),
    "invisible character": (content("PORT=1", "\u200bWORKERS=2"), "line 2", NOT_AN_ASSIGNMENT),
}


@pytest.mark.parametrize("name", BROKEN)
def test_line_that_cannot_be_read_is_named_and_not_quoted(name: str, tmp_path: Path) -> None:
    written, line, problem = BROKEN[name]
    (tmp_path / ".env").write_bytes(written)
    with pytest.raises(SettingsError) as error:
        read_settings()
    assert [*error.value.problems] == [f".env, {line}"]
    assert problem in error.value.problems[f".env, {line}"]
    assert SECRET not in str(error.value)


def test_every_line_that_cannot_be_parsed_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(content("PORT 1", "WORKERS=2", "HOST: ::1"))
    with pytest.raises(SettingsError) as error:
        read_settings()
    assert [*error.value.problems] == [".env, line 1", ".env, line 3"]


@pytest.mark.parametrize(
    "written",
    [
        content("PORT=1000"),
        b"\xef\xbb\xbf" + content("PORT=1000"),
        b"\xef\xbb\xbf# keys\r\n\r\nexport PORT='1000'  # of this machine\r\n",
        content("port = 1000 # of this machine"),
        content("OTHER", "OTHER_TEXT='two", "lines'", "npm.config-x=1", "PORT=1000"),
        content("PORT=1000", "PROVIDERS='{", "}'"),
        content("PORT=1000", "WORKERS=", "SECRET_KEY="),
        content("OTHER_PORT=1000", "PORT=${OTHER_PORT}"),
    ],
    ids=["plain", "BOM", "BOM, CRLF, export", "spaces", "other programs", "JSON", "empty values", "variable"],
)
def test_forms_of_env_that_other_programs_write_are_read(written: bytes, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(written)
    assert read_settings() == Settings(port=1000)


def test_folder_named_env_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    with pytest.raises(SettingsError, match="must be a file, and is a folder"):
        read_settings()


def test_env_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").symlink_to(".env")
    with pytest.raises(SettingsError, match="cannot be read: Too many levels of symbolic links"):
        read_settings()


def test_env_that_links_to_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").symlink_to("missing")
    with pytest.raises(SettingsError, match="is a link to a missing file"):
        read_settings()


def accord(folder: Path, command: str) -> "subprocess.CompletedProcess[str]":
    return run_command(command.split(), folder, {})


@pytest.mark.parametrize(
    "command", ["serve", "migrate", "rotate-keys", "account ban a@example.com", "admin grant a@example.com"]
)
def test_every_command_refuses_env_that_cannot_be_parsed(command: str, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(content("PORT=1", "", f"SECRET_KEY {SECRET}"))
    done = accord(tmp_path, command)
    assert done.returncode == 2
    assert f".env, line 3  {NOT_AN_ASSIGNMENT}" in done.stderr
    assert "Traceback" not in done.stderr
    assert "python-dotenv" not in done.stderr
    assert SECRET not in done.stdout + done.stderr


def test_doctor_names_the_line_of_env_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes("PORT=1\n".encode("utf-16"))
    done = accord(tmp_path, "doctor")
    assert "✗ .env, line 1 is UTF-16: save the file as UTF-8" in done.stdout
    assert done.stderr == ""
    assert done.returncode == 1


def test_env_may_be_a_pipe_that_can_be_read_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".env")
    with subprocess.Popen(["sh", "-c", "printf 'PORT=1000\\nDATABSE_URL=x\\n' >.env"], cwd=tmp_path) as writer:
        try:
            done = accord(tmp_path, "migrate")
        finally:
            writer.kill()
    assert "DATABSE_URL  is not a setting. Correct it to DATABASE_URL in .env" in done.stderr
    assert done.returncode == 2
