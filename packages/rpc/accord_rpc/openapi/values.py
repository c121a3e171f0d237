"""Values that the rules of a field accept, for examples and tests."""

import re
from importlib import import_module
from typing import Any

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
    """A text that the pattern matches: the shortest, of the first choices, or of the next ones for the number 1."""
    simple = re.sub(r"\\[pP]\{\^?\w+\}|\\[pP]\w", "[a-z]", pattern)
    return "".join(_written(simple_part, number) for simple_part in _parse(simple))


def _written(part: Any, number: int) -> str:
    kind, value = str(part[0]), part[1]
    match kind:
        case "LITERAL":
            return chr(value)
        case "NOT_LITERAL":
            return "a" if value != ord("a") else "b"
        case "ANY":
            return "ab"[number % 2]
        case "IN":
            return _one_of(value, number)
        case "MAX_REPEAT" | "MIN_REPEAT":
            least, most, inside = value
            return str("".join(_written(each, number) for each in inside) * max(least, min(1, most)))
        case "SUBPATTERN":
            return "".join(_written(each, number) for each in value[-1])
        case "BRANCH":
            choices = value[1]
            return "".join(_written(each, number) for each in choices[number % len(choices)])
        case "AT":
            return ""
    raise ValueError(f"no example for {kind}")


_CATEGORIES = {
    "CATEGORY_DIGIT": "01",
    "CATEGORY_WORD": "ab",
    "CATEGORY_SPACE": "  ",
    "CATEGORY_NOT_DIGIT": "ab",
    "CATEGORY_NOT_SPACE": "ab",
}


def _one_of(choices: list[tuple[Any, Any]], number: int) -> str:
    kind, value = str(choices[0][0]), choices[0][1]
    if kind == "NEGATE":
        return next(letter for letter in "ab01_- " if not re.match(_set(choices[1:]), letter))
    if kind == "RANGE":
        first, last = value
        return chr(min(first + number, last))
    if kind == "CATEGORY":
        return _CATEGORIES[str(value)][number % 2]
    return chr(value)


def _set(choices: list[tuple[Any, Any]]) -> str:
    parts = []
    for kind, value in choices:
        if str(kind) == "RANGE":
            first, last = value
            parts.append(f"{re.escape(chr(first))}-{re.escape(chr(last))}")
        elif str(kind) == "LITERAL":
            parts.append(re.escape(chr(value)))
    return f"[{''.join(parts)}]" if parts else r"(?!)"
