"""No part of a setting that contains a secret is printed, however its value is malformed."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from pydantic import BaseModel, SecretBytes, SecretStr

from accord.accounts.v1.accounts_pb2 import SignUpRequest
from accord.accounts.v1.accounts_pb2_grpc import AccountServiceStub
from accord.providers.v1.providers_pb2 import BeginProviderSignInRequest
from accord.providers.v1.providers_pb2_grpc import ProviderServiceStub
from accord_gateway.settings import Settings
from tests.gateway.conftest import Start, environment, healthy

MARKER = "hunter2-correct-horse"

SIGNED_IN = "https://app.example.com/signed-in"

# Forms of a value: alone, in and around URLs, in JSON of every shape, and truncated.
FORMS = (
    "{marker}",
    " {marker} ",
    "{marker}\n{marker}",
    "'{marker}",
    '"{marker}"',
    "{marker}:{marker}",
    "{marker}={marker}",
    "name:{marker}",
    "name:{marker},name:{marker}",
    "//{marker}",
    "{scheme}:{marker}",
    "{scheme}://{marker}",
    "{scheme}://{marker}@",
    "{scheme}://:{marker}@",
    "{scheme}://ada:{marker}",
    " {scheme}://ada:{marker}@host:port/name",
    "{scheme}://ada:{marker}@host:99999/name",
    "{scheme}://ada:%zz{marker}@host:-1/name",
    "{scheme}://ada:p%C3%A4{marker}@host/name",
    "{scheme}://ada:a@{marker}@host:x/name",
    "{scheme}://ada:a/{marker}@host/name",
    "{scheme}://ada:1/{marker}@host/name",
    "{scheme}://ada:a#{marker}@host/name",
    "{scheme}://ada:a?{marker}@host/name",
    "{scheme}://ada:{marker}@[::1/name",
    "{scheme}://ada:{marker}@[host]/name",
    "{scheme}://ada:{marker}\u2100@host/name",
    "{scheme}://ada:{marker}@host:5432/name?{marker}",
    "{scheme}://ada:{marker}@host:5432/name?sslmode={marker}",
    "{scheme}://ada:{marker}@host name/a b",
    "mysql://ada:{marker}@host/name",
    "host=db password={marker}",
    '"{marker}',
    '["{marker}"]',
    '[["{marker}"]]',
    '{{"{marker}": "{marker}"}}',
    '{{"corp": "{marker}"}}',
    '{{"corp": ["{marker}"]}}',
    '{{"corp": {{"{marker}": "{marker}"}}}}',
    '{{"corp": {{"client_secret": "{marker}"}}}}',
    '{{"corp": {{"client_secret": ["{marker}"]}}}}',
    '{{"corp": {{"client_secret": {{"{marker}": 1}}}}}}',
    '{{"corp": {{"issuer": "https://ada:{marker}@login.example.com"}}}}',
    '{{"corp": {{"issuer": "http://[{marker}", "client_id": "{marker}", "client_secret": "{marker}"}}}}',
    '{{"corp": {{"issuer": 1, "client_id": 2, "client_secret": "{marker}", "scopes": "{marker}"}}}}',
    '{{"issuer": "https://a.example.com", "client_id": "a", "client_secret": "{marker}"}}',
    '{{"corp": {{"client_secret": "{marker}"}}',
)
SCHEMES = ("postgresql", "smtp", "smtps", "async+redis")
SECRETS_BY_NAME = ("KEY", "KEYS", "SECRET", "PASSWORD", "TOKEN")
# Paths of PEM files, which are no secrets.
PATHS = {"TLS_KEY_FILE"}

# One process for all values. PORT is invalid too, so that the command ends before it starts anything.
DRIVER = """
import json, os, sys
from accord_gateway.__main__ import main

for values in json.load(sys.stdin):
    os.environ.update(values)
    status = main(["migrate"])
    assert status == 2, status
    for name in values:
        del os.environ[name]
"""


def secret_settings() -> list[str]:
    return [name.upper() for name, field in Settings.model_fields.items() if any(_secrets(field.annotation))]


def _secrets(annotation: object) -> Iterator[object]:
    if annotation in (SecretStr, SecretBytes):
        yield annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for field in annotation.model_fields.values():
            yield from _secrets(field.annotation)
    for argument in getattr(annotation, "__args__", ()):
        yield from _secrets(argument)


def forms() -> list[str]:
    return [*dict.fromkeys(form.format(marker=MARKER, scheme=scheme) for form in FORMS for scheme in SCHEMES)]


def values() -> list[dict[str, str]]:
    return [{name: form} for name in secret_settings() for form in forms()]


def test_settings_with_secrets_are_found() -> None:
    found = secret_settings()
    assert {"DATABASE_URL", "SECRET_KEY", "ENCRYPTION_KEYS", "SMTP_URL", "PROVIDERS"} <= set(found)
    named = {name.upper() for name in Settings.model_fields if name.upper().split("_")[-1] in SECRETS_BY_NAME}
    assert named - PATHS <= set(found)
    assert len(values()) > 500


def run(folder: Path, driver: str, stdin: str = "", **settings: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", driver],
        cwd=folder,
        env=environment(settings),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, (done.stdout + done.stderr).replace(MARKER, "***")[-2000:]
    return done.stdout + done.stderr


@pytest.mark.parametrize("mode", ["development", "production"])
def test_no_value_of_a_secret_setting_is_printed(tmp_path: Path, mode: str) -> None:
    printed = run(tmp_path, DRIVER, json.dumps(values()), PORT="many", ACCORD_ENV=mode)
    assert printed.count("accord: Accord cannot start") == len(values())
    leaks = [line for line in printed.splitlines() if MARKER in line]
    assert leaks == []


@pytest.mark.parametrize("assignment", ["{name}={form}", '{name}="{form}', "{name}: {form}", "{name} {form}"])
def test_no_line_of_env_with_a_secret_is_printed(tmp_path: Path, assignment: str) -> None:
    """With a correct name, a misspelled name, and without a name."""
    names = [*secret_settings(), "SECRET_KEYY", "DATABSE_URL", "SECRET_KEY:", ""]
    lines = [assignment.format(name=name, form=form.replace("\n", " ")) for name in names for form in forms()]
    (tmp_path / ".env").write_text("\n".join(["PORT=many", *lines]))
    printed = run(tmp_path, 'from accord_gateway.__main__ import main; main(["migrate"])')
    assert "Accord cannot start" in printed
    assert [line for line in printed.splitlines() if MARKER in line] == []


def test_url_in_a_setting_without_secrets_is_not_printed(tmp_path: Path) -> None:
    """The value of one setting in another."""
    printed = run(tmp_path, DRIVER, json.dumps([{"WORKERS": f"postgresql://ada:{MARKER}@db/accord"}]), PORT="many")
    assert "WORKERS" in printed
    assert MARKER not in printed


def test_secrets_that_servers_refuse_are_not_logged(start: Start, database_url: str) -> None:
    """Valid values, for servers that do not exist."""
    corp = {"issuer": "http://127.0.0.1:1", "client_id": "accord", "client_secret": MARKER}
    gateway = start(
        DATABASE_URL=database_url,
        LOG_LEVEL="debug",
        SECRET_KEY=f"{MARKER}-of-32-bytes-and-more",
        SMTP_URL=f"smtp://ada:{MARKER}@127.0.0.1:1",
        RATE_LIMIT_STORAGE=f"async+redis://:{MARKER}@127.0.0.1:1",
        GOOGLE_CLIENT_ID="1",
        GOOGLE_CLIENT_SECRET=MARKER,
        PROVIDERS=json.dumps({"corp": corp}),
        PROVIDER_REDIRECT_URIS=SIGNED_IN,
    )
    assert healthy(gateway.address)
    with grpc.insecure_channel(gateway.address) as channel:
        AccountServiceStub(channel).SignUp(
            SignUpRequest(email="ada@example.com", password="a sentence that only I know", display_name="Ada"),
            timeout=20,
        )
        with pytest.raises(grpc.RpcError):
            ProviderServiceStub(channel).BeginProviderSignIn(
                BeginProviderSignInRequest(provider="corp", redirect_uri=SIGNED_IN), timeout=20
            )
    gateway.event("mail_not_sent")
    assert gateway.stop() == 0
    assert MARKER not in gateway.output
