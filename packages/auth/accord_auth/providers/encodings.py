"""Strict decoders of base64url (RFC 7515, section 2) and JSON: every value has one spelling."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Any, NoReturn


def base64url(value: bytes) -> str:
    """Without padding."""
    return urlsafe_b64encode(value).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    """Raises ValueError. The standard library skips unknown characters and ignores spare bits."""
    value = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64url(value) != text:
        raise ValueError("not canonical base64url")
    return value


class StrictDecoder(json.JSONDecoder):
    """Refuses duplicate names: two parsers could read two values (RFC 8725, section 2.4; RFC 8259, section 4)."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=_object, parse_constant=_refuse)


def read_object(text: bytes) -> dict[str, Any]:
    """Raises ValueError unless the text is one JSON object."""
    try:
        value = StrictDecoder().decode(text.decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate name")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
