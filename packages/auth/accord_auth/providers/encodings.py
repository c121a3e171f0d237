"""What others write in base64url (RFC 7515, 2) and in JSON, read strictly: every value has one spelling."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Any, NoReturn


def base64url(value: bytes) -> str:
    """Without padding."""
    return urlsafe_b64encode(value).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    """Raises ValueError. The library's own leaves out what it does not know, and does not look at spare bits."""
    value = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64url(value) != text:
        raise ValueError("not base64url in its one spelling")
    return value


class StrictDecoder(json.JSONDecoder):
    """Of a name that is there twice, two readers could see two values (RFC 8725, 2.4; RFC 8259, 4)."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=_object, parse_constant=_refuse)


def read_object(text: bytes) -> dict[str, Any]:
    """Raises ValueError if it is anything else than one JSON object."""
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
        raise ValueError("a name is there twice")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
