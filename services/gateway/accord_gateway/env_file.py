"""Reads `.env`: settings as NAME=value lines, in UTF-8. Problems name the file and the line, and never quote the line."""

import codecs
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import Binding, parse_stream

NOT_AN_ASSIGNMENT = "must be NAME=value, with every quote closed"
NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class EnvFile:
    """`values` is empty if there are `problems`, which are keyed by file and line."""

    values: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def read_env_file(path: Path, settings: Collection[str]) -> EnvFile:
    """Empty if the file does not exist. `settings` are the names that Accord reads, in upper case."""
    try:
        text = _decoded(path.read_bytes())
    except _Problem as problem:
        return EnvFile(problems={f"{path}, line {problem.line}": str(problem)})
    except FileNotFoundError:
        return EnvFile(problems={str(path): "is a link to a missing file"} if path.is_symlink() else {})
    except IsADirectoryError:
        return EnvFile(problems={str(path): "must be a file, and is a folder: rename the folder"})
    except OSError as error:
        return EnvFile(problems={str(path): f"cannot be read: {error.strerror}"})
    problems = {
        f"{path}, line {line}": problem
        for binding in parse_stream(StringIO(text))
        for line, problem in _problems(binding, settings)
    }
    if problems:
        return EnvFile(problems=problems)
    return EnvFile({name: value for name, value in dotenv_values(stream=StringIO(text)).items() if value})


class _Problem(Exception):
    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


def _decoded(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise _Problem(1, "is UTF-16: save the file as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Problem(content.count(b"\n", 0, error.start) + 1, "is not UTF-8: save the file as UTF-8") from None
    if "\0" in text:
        raise _Problem(text.count("\n", 0, text.index("\0")) + 1, "has a NUL character: save the file as UTF-8")
    return text


def _problems(binding: Binding, settings: Collection[str]) -> Iterator[tuple[int, str]]:
    """An unclosed quote ends at the next quote of the file, so that the lines between become part of the value."""
    blank, lines = _lines(binding.original.string)
    number = binding.original.line + blank
    is_setting = binding.key is not None and binding.key.upper() in settings
    lacks_value = binding.value is None and (is_setting or not NAME.fullmatch(binding.key or "_"))
    if binding.error or lacks_value or not NAME.fullmatch(binding.key or "_"):
        yield number, NOT_AN_ASSIGNMENT
    elif any(_is_assignment(line, settings) for line in lines[1:]):
        yield number, "must close its quote: the value contains the settings of the lines below"
    elif is_setting and len(lines) > 1 and not (binding.value or "").lstrip().startswith(("{", "[")):
        yield number, "must close its quote: the value has more than one line"


def _lines(original: str) -> tuple[int, list[str]]:
    """The number of blank lines before the assignment, and its lines."""
    text = original.lstrip()
    return len(original[: len(original) - len(text)].splitlines()), text.rstrip().splitlines()


def _is_assignment(line: str, settings: Collection[str]) -> bool:
    match = re.match(r"\s*(?:export\s+)?([\w.-]+)\s*=", line)
    return match is not None and match[1].upper() in settings
