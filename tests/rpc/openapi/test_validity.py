"""The OpenAPI document is valid under Redocly's linter, an independent implementation of the specification."""

import json
import os
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from tests.npm import installed

FOLDER = Path(__file__).parents[2] / "redocly"
TEXT = (files("accord") / "openapi.json").read_text()

pytestmark = pytest.mark.every_feature


def lint(document: Path) -> "subprocess.CompletedProcess[str]":
    node = installed(FOLDER)
    command = [node, "node_modules/@redocly/cli/bin/cli.js", "lint", str(document), "--config=redocly.yaml"]
    environment = {**os.environ, "REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}
    return subprocess.run(command, cwd=FOLDER, env=environment, capture_output=True, text=True)


def test_document_is_valid(tmp_path: Path) -> None:
    (tmp_path / "openapi.json").write_text(TEXT)
    done = lint(tmp_path / "openapi.json")
    assert done.returncode == 0, done.stdout + done.stderr


def test_linter_reports_a_reference_to_nothing(tmp_path: Path) -> None:
    """Otherwise it would also accept everything else."""
    document = json.loads(TEXT)
    del document["components"]["responses"]["404.TASK_NOT_FOUND"]
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    done = lint(tmp_path / "openapi.json")
    assert done.returncode != 0
    assert "TASK_NOT_FOUND" in done.stdout + done.stderr
