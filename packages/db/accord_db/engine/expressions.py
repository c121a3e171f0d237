"""Patterns for LIKE."""

import re

_SPECIAL = re.compile(r"[\\%_]")


def containing(text: str) -> str:
    """A pattern that finds this very text: `%`, `_` and the backslash stand for themselves."""
    return f"%{_escaped(text)}%"


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\g<0>", text)
