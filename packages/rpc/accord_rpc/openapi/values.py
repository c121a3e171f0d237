"""Values that the rules of a field accept, for examples and tests."""

import re
from collections.abc import Iterable
from importlib import import_module
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor

from buf.validate import validate_pb2

# Python's own parser of patterns. It has no public name.
_parse: Any = import_module("re._parser").parse


def fitting_text(rules: validate_pb2.StringRules) -> str:
    """A text of the right length that matches the pattern. Other rules may refuse it."""
    text = matching(rules.pattern) if rules.pattern else "x"
    least = rules.len or rules.min_len
    return text if len(text) >= least else "x" * least


def fitting_number(field: FieldDescriptor, rules: validate_pb2.FieldRules, usual: int) -> float:
    """The usual number if it is within the limits of the rules, else one of the limits."""
    kind = rules.WhichOneof("type")
    limits: Any = getattr(rules, kind) if kind else None
    if limits is None or not hasattr(limits, "lte"):
        return usual
    number: float = usual
    if limits.HasField("lte") and number > limits.lte:
        number = limits.lte
    if limits.HasField("gte") and number < limits.gte:
        number = limits.gte
    is_whole = field.cpp_type not in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT)
    return int(number) if is_whole else float(number)


def matching(pattern: str, number: int = 0) -> str:
    """A text that the pattern matches: the shortest, with the first of its choices, or another one for another number."""
    # Python has no classes of Unicode characters.
    simple = re.sub(r"(?<=\[)\\[pP]\{\^?\w+\}", "a-z", pattern)
    simple = re.sub(r"\\[pP]\{\^?\w+\}|\\[pP]\w", "[a-z]", simple)
    return _Text(number).of(_parse(simple))


class _Text:
    """Each choice takes its part of the number, so that texts of different numbers differ as long as there are choices."""

    def __init__(self, number: int) -> None:
        self._number = number

    def of(self, parts: Iterable[Any]) -> str:
        return "".join(self._part(str(kind), value) for kind, value in parts)

    def _choice(self, among: int) -> int:
        self._number, chosen = divmod(self._number, among)
        return chosen

    def _part(self, kind: str, value: Any) -> str:
        match kind:
            case "LITERAL":
                return chr(value)
            case "NOT_LITERAL":
                return "a" if value != ord("a") else "b"
            case "ANY":
                return "ab"[self._choice(2)]
            case "IN":
                return self._one_of(value)
            case "MAX_REPEAT" | "MIN_REPEAT":
                least, most, inside = value
                return "".join(self.of(inside) for _ in range(max(least, min(1, most))))
            case "SUBPATTERN":
                return self.of(value[-1])
            case "BRANCH":
                branches = value[1]
                return self.of(branches[self._choice(len(branches))])
            case "AT":
                return ""
        raise ValueError(f"no example for {kind}")

    def _one_of(self, choices: list[tuple[Any, Any]]) -> str:
        kind, value = str(choices[0][0]), choices[0][1]
        if kind == "NEGATE":
            fitting = [letter for letter in _LETTERS if re.match(_set(choices[1:]), letter) is None]
            return fitting[self._choice(len(fitting))]
        if kind == "RANGE":
            first, last = value
            return chr(first + self._choice(last - first + 1))
        if kind == "CATEGORY":
            return _CATEGORIES[str(value)][self._choice(2)]
        return chr(value)


_LETTERS: Final = "ab01_- "
_CATEGORIES: Final = {
    "CATEGORY_DIGIT": "01",
    "CATEGORY_WORD": "ab",
    "CATEGORY_SPACE": "  ",
    "CATEGORY_NOT_DIGIT": "ab",
    "CATEGORY_NOT_SPACE": "ab",
}


def _set(choices: list[tuple[Any, Any]]) -> str:
    parts = []
    for kind, value in choices:
        if str(kind) == "RANGE":
            parts.append(f"{re.escape(chr(value[0]))}-{re.escape(chr(value[1]))}")
        elif str(kind) == "LITERAL":
            parts.append(re.escape(chr(value)))
    return f"[{''.join(parts)}]" if parts else r"(?!)"
