"""The messages that docs/troubleshooting.md quotes are in the code."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/troubleshooting.md").read_text()
SOURCES = [path for folder in ("packages", "services", "tools") for path in (ROOT / folder).rglob("*.py")]

# Messages of PostgreSQL, grpcio, browsers and other clients.
FOREIGN = re.compile(
    r"wrong version number|Empty reply from server|Failed to connect to … Couldn't|No 'Access-Control-Allow-Origin' header"
    r"|unexpected HTTP status code|connection failed: |(Failed to dial target host … )?connect: connection refused|Failed to connect to remote host"
    r"|failed to find service named|server does not support|first record does not|WRONG_VERSION_NUMBER|Socket closed"
    r"|pre-existing shared memory|RuntimeError: The grpc package installed|psql |\tIs the server running"
)
# Values in a message: names of files and methods, numbers, and text in brackets.
FILLED = re.compile(r"…|\(.*?\)|\S*[/\d_.]\S*|'.*?'|\bPORT\b|\bMETRICS_PORT\b")
SHORTEST_FRAGMENT = 12  # characters; shorter fragments would match unrelated text


@cache
def string_constants() -> str:
    """Every string constant of the code, and the contract's errors. The parser joins adjacent string literals."""
    trees = (ast.parse(path.read_text()) for path in SOURCES if not path.name.endswith(("_pb2.py", "_pb2_grpc.py")))
    texts = [node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    errors = (ROOT / "proto/accord/errors/v1/errors.proto").read_text()
    return "\n".join([*(text for text in texts if isinstance(text, str)), errors])


def quotes() -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    blocks = [block for language, block in fenced if not language]
    cells = re.findall(r"^\| ([^|`]*`.*?) \| ", PAGE, flags=re.MULTILINE)
    lines = [line.removeprefix("accord: ").strip(" -") for block in blocks for line in block.splitlines()]
    return [*lines, *(quote for cell in cells for quote in re.findall(r"`([^`]+)`", cell))]


def fragments(quote: str) -> list[str]:
    return [part for piece in FILLED.split(quote) if len(part := piece.strip(" :,`")) >= SHORTEST_FRAGMENT]


def test_page_quotes_messages() -> None:
    assert len(quotes()) > 25


@pytest.mark.parametrize("quote", [quote for quote in quotes() if fragments(quote) and not FOREIGN.match(quote)])
def test_quoted_message_is_in_the_code(quote: str) -> None:
    """The code does not contain the values of a message. The text around them must be equal."""
    assert any(words in string_constants() for fragment in fragments(quote) for words in _prefixes(fragment))


def _prefixes(fragment: str) -> list[str]:
    """The fragment and its prefixes, because a fragment may end in a value."""
    words = fragment.split()
    return [prefix for end in range(len(words), 0, -1) if len(prefix := " ".join(words[:end])) >= SHORTEST_FRAGMENT]
