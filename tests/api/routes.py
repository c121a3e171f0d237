"""Requests of REST, made from the JSON form of a message by `google.api.http`. An implementation of its own, so that a mistake of
the server does not repeat itself here."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final
from urllib.parse import quote, urlencode

from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor import MethodDescriptor

_VERBS: Final = ("get", "put", "post", "delete", "patch")
_VARIABLE: Final = re.compile(r"\{([a-z0-9_.]+)(?:=[^}]*)?\}")
WHOLE: Final = "*"
MAX_TARGET_BYTES: Final = 8 * 1000  # a longer one may not reach the route

Document = dict[str, Any]
"""The JSON form of a message, as a parser returns it."""


@dataclass(frozen=True)
class Target:
    verb: str
    path: str
    query: tuple[tuple[str, str], ...]
    body: Document | None
    """None if the route has no body."""
    operation: str = ""
    """In the OpenAPI document."""

    @property
    def fits(self) -> bool:
        """Whether every variable has a value, and a server reads a line of this length."""
        return "" not in self.path.split("/")[1:] and "/:" not in self.path and len(str(self)) < MAX_TARGET_BYTES

    def __str__(self) -> str:
        return self.path + (f"?{urlencode(self.query)}" if self.query else "")


@dataclass(frozen=True)
class Route:
    """A binding of a method. `variables` are paths of fields, and `body` is a field, `*` or empty."""

    verb: str
    template: str
    variables: tuple[str, ...]
    body: str
    operation: str

    def target(self, document: Document) -> Target:
        """The request with these fields. An absent variable is an empty segment."""
        left: Document = dict(document)
        path = _VARIABLE.sub(lambda found: quote(_text(_take(left, found[1])), safe=""), self.template)
        if self.body == WHOLE:
            return Target(self.verb, path, (), left, self.operation)
        body = left.pop(json_name(self.body), {}) if self.body else None
        return Target(self.verb, path, tuple(_pairs(left)), body, self.operation)


@cache
def routes(method: MethodDescriptor) -> tuple[Route, ...]:
    """The bindings of a method, the main one first; none for a method that REST does not have."""
    main = method.GetOptions().Extensions[annotations_pb2.http]
    name = f"{method.containing_service.name}_{method.name}"
    return tuple(_routes([main, *main.additional_bindings], name))


def route(method: MethodDescriptor) -> Route | None:
    """The main binding."""
    return next(iter(routes(method)), None)


def _routes(rules: Iterable[HttpRule], name: str) -> Iterator[Route]:
    for number, rule in enumerate(rules, 1):
        for verb in _VERBS:
            if template := str(getattr(rule, verb)):
                operation = name if number == 1 else f"{name}_{number}"
                yield Route(verb.upper(), template, tuple(_VARIABLE.findall(template)), rule.body, operation)


def _take(document: Document, path: str) -> object:
    """Removes a field, which the path has instead. The messages around it stay."""
    *way, last = map(json_name, path.split("."))
    for name in way:
        document[name] = document = dict(document.get(name, {}))
    return document.pop(last, "")


def _pairs(document: Document, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in document.items():
        if isinstance(value, dict):
            yield from _pairs(value, f"{prefix}{name}.")
        else:
            for each in value if isinstance(value, list) else [value]:
                yield f"{prefix}{name}", _text(each)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def json_name(name: str) -> str:
    """As protoc makes it: `task_id` is `taskId`."""
    first, *others = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in others)
