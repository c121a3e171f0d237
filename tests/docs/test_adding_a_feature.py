"""Follows docs/adding_a_feature.md by hand, word for word, in a copy of the repository. tests/tools/test_generator.py runs the commands
of its first part."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

import check
from tests.copies import ROOT, Copy
from tests.gateway.conftest import eventually

PAGE = ROOT / "docs/adding_a_feature.md"
# Of the tests that concern the feature: hostile messages take minutes, generated requests for every operation six seconds.
NOT_RUN = "hostile or large or test_openapi_conformance"


@dataclass(frozen=True)
class Block:
    """A code block of the page: its language, the file that is named above it if there is one, and its text."""

    language: str
    path: str
    text: str


def blocks(page: str) -> Iterator[Block]:
    """A file's name applies to all blocks up to the next text."""
    path = ""
    for part in re.split(r"^(```\w+\n.*?^```\n)", page, flags=re.MULTILINE | re.DOTALL):
        if code := re.fullmatch(r"```(\w+)\n(.*)```\n", part, flags=re.DOTALL):
            yield Block(code[1], path, code[2])
        elif part.strip():
            named = re.search(r"^\*\*`([^`]+)`\*\*\s*\Z", part, flags=re.MULTILINE)
            path = named[1] if named else ""


def write(copy: Copy, block: Block) -> None:
    file = copy.root / block.path
    if block.language == "diff":
        file.write_text(changed(file.read_text(), block.text))
    else:
        assert not file.exists(), f"{block.path} is there already"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text)


def check_feature(copy: Copy, feature: str, files: list[str]) -> None:
    """Runs what `make check args=…` runs, for these files: the others have not changed."""
    *quick, tests = check.STEPS
    commands = [f"{command} {' '.join(files) if tool in ('ruff', 'mypy') else ''}" for tool, command in map(of, quick)]
    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(copy.run, commands):
            assert done is not None
    assert tests.command == ("pytest",)
    assert "passed" in copy.run(f".venv/bin/python -m pytest -q -n0 --feature={feature} -k 'not ({NOT_RUN})'")


def changed(before: str, diff: str) -> str:
    lines = [(line[:1], line[1:]) for line in diff.splitlines(keepends=True)]
    old = "".join(text for sign, text in lines if sign != "+")
    assert before.count(old) == 1, f"this is not there, or more than once:\n{old}"
    return before.replace(old, "".join(text for sign, text in lines if sign != "-"))


def of(step: check.Step) -> tuple[str, str]:
    """A step's program, and its command."""
    program, *arguments = step.command
    return program, " ".join([f".venv/bin/{program}", *arguments])


@pytest.mark.skipif((ROOT / "proto/accord/projects").exists(), reason="the page has been followed in this repository")
def test_following_the_page_word_for_word_works(tmp_path: Path) -> None:
    copy, page = Copy(tmp_path / "accord"), list(blocks(PAGE.read_text().partition("## By hand")[2]))
    files = sorted({block.path for block in page if block.path.endswith(".py")})
    followed = set[str]()
    for block in page:
        if block.path:
            write(copy, block)
        elif "curl" in block.text:
            assert '"settings":{"theme":"dark"}' in called(copy, block.text)
            followed.add("curl")
        else:
            for command in block.text.splitlines():
                if command.startswith("make check args="):
                    check_feature(copy, command.partition("=")[2], files)
                else:
                    copy.run(command)
                followed.add(command.partition(" args=")[0].partition(" m=")[0])
    assert followed == {"make stubs", "make migration", "make fmt", "make check", "curl"}


def called(copy: Copy, command: str) -> str:
    """The output of the calls of a user who has signed up and in."""
    with copy.serving() as gateway:
        sign_in = re.compile(r"^curl .*/v1/accounts .*\nTOKEN=.*/v1/sessions .*\n", re.MULTILINE)
        typed = eventually(lambda: sign_in.search(gateway.output), gateway)
        return copy.run(typed[0] + command.replace("127.0.0.1:50051", gateway.address))
