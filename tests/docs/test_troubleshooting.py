"""The messages that docs/troubleshooting.md quotes are those that the code prints."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/troubleshooting.md").read_text()
SOURCES = [path for folder in ("packages", "services", "tools") for path in (ROOT / folder).rglob("*.py")]

# What PostgreSQL, grpcio and clients say.
FOREIGN = re.compile(
    r"connection failed: |(Failed to dial target host … )?connect: connection refused|Failed to connect to remote host"
    r"|failed to find service named|server does not support|first record does not|WRONG_VERSION_NUMBER|Socket closed"
    r"|pre-existing shared memory|RuntimeError: The grpc package installed|psql |\tIs the server running"
)
# What is filled into a message: names of files and methods, numbers, and whatever is in brackets.
FILLED = re.compile(r"…|\(.*?\)|\S*[/\d_.]\S*|'.*?'|\bPORT\b|\bMETRICS_PORT\b")
ENOUGH = 12  # characters; fewer would be found anywhere


@cache
def printed() -> str:
    """Every text of the code and the contract, implicit concatenation undone."""
    trees = (ast.parse(path.read_text()) for path in SOURCES if not path.name.endswith(("_pb2.py", "_pb2_grpc.py")))
    texts = [node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    errors = (ROOT / "proto/accord/errors/v1/errors.proto").read_text()
    return "\n".join([*(text for text in texts if isinstance(text, str)), errors])


def quotes() -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    blocks = [block for language, block in fenced if not language]
    cells = re.findall(r"^\| (`.*?) \| ", PAGE, flags=re.MULTILINE)
    lines = [line.removeprefix("accord: ").strip(" -") for block in blocks for line in block.splitlines()]
    return [*lines, *(quote for cell in cells for quote in re.findall(r"`([^`]+)`", cell))]


def fragments(quote: str) -> list[str]:
    return [part for piece in FILLED.split(quote) if len(part := piece.strip(" :,`")) >= ENOUGH]


def test_page_quotes_messages() -> None:
    assert len(quotes()) > 25


@pytest.mark.parametrize("quote", [quote for quote in quotes() if fragments(quote) and not FOREIGN.match(quote)])
def test_quoted_message_is_printed(quote: str) -> None:
    """Values are filled in, and so not all of it is in the code; what is must be so to the letter."""
    assert any(words in printed() for fragment in fragments(quote) for words in _runs(fragment))


def _runs(fragment: str) -> list[str]:
    """The fragment, and for one that ends in a value what is before it."""
    words = fragment.split()
    return [run for end in range(len(words), 0, -1) if len(run := " ".join(words[:end])) >= ENOUGH]
