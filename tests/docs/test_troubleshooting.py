"""The messages that docs/troubleshooting.md quotes are those that the code prints."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/troubleshooting.md").read_text()
SOURCES = [path for folder in ("packages", "services", "scripts") for path in (ROOT / folder).rglob("*.py")]

GAP = "…"
SHORTEST = 7  # characters of a message that are its own; fewer would fit anything
LONG = 6  # words; what stands in a gap and is longer is a message itself

# What PostgreSQL, grpcio, and clients say.
FOREIGN = re.compile(
    r"connection failed: |(Failed to dial target host … )?connect: connection refused|Failed to connect to remote host"
    r"|failed to find service named|server does not support|first record does not|WRONG_VERSION_NUMBER|Socket closed"
    r"|pre-existing shared memory|RuntimeError: The grpc package installed|psql "
)


@cache
def printed() -> list[str]:
    """Every text of the code and the contract, with gaps where values are filled in."""
    trees = (ast.parse(path.read_text()) for path in SOURCES if not path.name.endswith(("_pb2.py", "_pb2_grpc.py")))
    found = {text for tree in trees for node in ast.walk(tree) for text in text_of(node)}
    answers = re.findall(
        r'^ +message: "(.*)"$', (ROOT / "proto/accord/errors/v1/errors.proto").read_text(), re.MULTILINE
    )
    return [text for text in (*found, *answers) if len(text.replace(GAP, "")) >= SHORTEST]


def text_of(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield re.sub(r"\{\w*\}|%s", GAP, node.value)


def pattern(text: str) -> re.Pattern[str]:
    return re.compile("(.*)".join(map(re.escape, text.split(GAP))), re.DOTALL)


def is_printed(message: str) -> bool:
    """Whether the code prints just that, and within a gap, if much stands there, something that it prints too."""
    if FOREIGN.match(message):
        return True
    fits = [fit for text in printed() if (fit := pattern(text).fullmatch(message))]
    heading, _, rest = message.partition(": ")
    return any(all(map(is_short_or_printed, parts)) for parts in [*(fit.groups() for fit in fits), (heading, rest)])


def is_short_or_printed(part: str) -> bool:
    return len(part.split()) <= LONG or is_printed(part)


def is_part_of_what_is_printed(quote: str) -> bool:
    return bool(FOREIGN.match(quote)) or any(pattern(quote).search(text) for text in printed())


def blocks() -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    return [block.strip() for language, block in found if not language]


def first_cells() -> list[str]:
    cells = re.findall(r"^\| (`.*?) \| ", PAGE, flags=re.MULTILINE)
    return [quote for cell in cells for quote in re.findall(r"`([^`]+)`", cell)]


def test_it_quotes() -> None:
    assert len(blocks()) > 10
    assert len(first_cells()) > 15


@pytest.mark.parametrize("block", blocks(), ids=lambda block: block[:40])
def test_message_is_what_is_printed(block: str) -> None:
    said = re.sub(r"^(accord: |  - )", "", block, flags=re.MULTILINE)
    assert is_printed(said) or all(map(is_printed, said.splitlines()))


@pytest.mark.parametrize("quote", first_cells())
def test_quote_is_part_of_what_is_printed(quote: str) -> None:
    assert is_part_of_what_is_printed(quote)
