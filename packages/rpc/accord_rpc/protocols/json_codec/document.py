"""Bytes to JSON values. Refuses what JSON parsers disagree about, so that no two of them read one request differently."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import orjson

from accord_rpc.errors import FieldViolation, invalid

MAX_DEPTH: Final = 32
"""Of objects and lists. The parser of binary messages allows a hundred levels, of which a level of a Struct takes three."""
MAX_VALUES: Final = 50_000
"""In one request. Reading a value of a Struct takes microseconds, in which this process serves no other call."""
MAX_VIOLATIONS: Final = 100
"""A status holds fewer. The rest of a message with more is not read."""

_NOT_JSON: Final = FieldViolation(
    "", "the body is not JSON: it must be UTF-8, without NaN, infinite numbers or lone surrogates"
)
_TOO_DEEP: Final = FieldViolation("", f"the JSON must not be nested more than {MAX_DEPTH} levels deep")
_TOO_LARGE: Final = FieldViolation("", f"the JSON must not have more than {MAX_VALUES} values")
# Takes linear time, also for a text without an end.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\(?:.|\Z)[^"\\]*+)*+(?:"|\Z)', re.DOTALL)


class Violations:
    """The problems of one request."""

    def __init__(self) -> None:
        self._found: list[FieldViolation] = []
        self.has_repeated_keys = False
        """Whether an object of the request has a key twice, at any depth. It is a `RepeatedKeys`."""

    def add(self, path: str, description: str) -> None:
        """Raises INVALID_MESSAGE if there are too many. `path` has the names of the contract, never text from the request."""
        self._found.append(FieldViolation(path, description))
        if len(self._found) >= MAX_VIOLATIONS:
            self.check()

    def check(self) -> None:
        """Raises INVALID_MESSAGE if there are any."""
        if self._found:
            raise invalid(*self._found)


class RepeatedKeys(dict[str, object]):
    """An object that has a key twice."""

    def __init__(self, pairs: Sequence[tuple[str, object]]) -> None:
        super().__init__(pairs)
        self.repeated = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]


def parse(body: bytes, violations: Violations) -> object:
    """A value of the types that orjson makes. Raises INVALID_MESSAGE for anything that is not JSON, or too deep. Readers of the
    value report keys that are given twice."""
    if len(body) > MAX_VALUES and _has_many_containers(body):
        raise invalid(_TOO_LARGE)
    try:
        value: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise invalid(_NOT_JSON) from None
    if _has_unique_keys(body, value):
        return value
    repeated = _parse_repeated(body)
    if repeated is None:
        return value
    violations.has_repeated_keys = True
    return repeated


def _has_many_containers(body: bytes) -> bool:
    """Before they are made: a million empty lists keep the garbage collector busy for seconds."""
    return _containers(body) > MAX_VALUES and _containers(_STRING.sub(b"", body)) > MAX_VALUES


def _containers(body: bytes) -> int:
    return body.count(b"[") + body.count(b"{")


def _has_unique_keys(body: bytes, value: object) -> bool:
    """False if it cannot tell. orjson keeps the last of equal keys, so that the value has fewer members than the body has keys,
    each with its colon. Texts can contain colons too; then, most programs have written what orjson writes."""
    if type(value) is not dict and type(value) is not list:
        return True
    return _members(value) == body.count(b":") or orjson.dumps(value) == body


def _members(document: dict[str, object] | list[object]) -> int:
    """Of all objects in the document."""
    members = values = depth = 0
    level: list[Any] = [document]
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise invalid(_TOO_DEEP)
        below: list[Any] = []
        for each in level:
            values += len(each)
            if values > MAX_VALUES:
                raise invalid(_TOO_LARGE)
            if type(each) is dict:
                members += len(each)
                each = each.values()
            below += [value for value in each if type(value) is dict or type(value) is list]
        level = below
    return members


def _parse_repeated(body: bytes) -> object | None:
    """The value if a key is given twice, else None. Slower than orjson."""
    repeats = False

    def build(pairs: list[tuple[str, object]]) -> dict[str, object]:
        nonlocal repeats
        built = dict(pairs)
        if len(built) == len(pairs):
            return built
        repeats = True
        return RepeatedKeys(pairs)

    # Python refuses to make an int of more than 4300 digits.
    parsed: object = json.loads(body, object_pairs_hook=build, parse_int=float)
    return parsed if repeats else None


def repeats_keys(value: object) -> bool:
    """Whether an object in the value has a key twice."""
    if isinstance(value, dict):
        return isinstance(value, RepeatedKeys) or any(map(repeats_keys, value.values()))
    return isinstance(value, list) and any(map(repeats_keys, value))
