"""Finds the rule that a request's path matches. Literal paths are looked up in one dictionary, others in a tree of segments."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from accord_rpc.protocols.rest.http_rules import HttpRule
from accord_rpc.protocols.rest.path_templates import ONE, REST

_BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


class PathError(ValueError):
    """A path that no template can match safely."""


class Match(NamedTuple):
    """The rule, and the decoded text of each of its variables."""

    rule: HttpRule
    values: Sequence[str]


class Router:
    """`find` returns a match, or the HTTP methods that the path has: none if there is no such path."""

    def __init__(self, rules: Iterable[HttpRule]) -> None:
        self._literal: dict[tuple[str, str], HttpRule] = {}
        self._tree = _Node()
        for rule in rules:
            self._tree.add(rule)
            if rule.template.is_literal:
                self._literal[rule.verb, rule.template.text] = rule

    def find(self, verb: str, path: str) -> Match | frozenset[str]:
        """`path` is as sent: percent-encoded, without the query. Raises PathError."""
        rule = self._literal.get((verb, path))
        return self._search(verb, path) if rule is None else Match(rule, ())

    def _search(self, verb: str, path: str) -> Match | frozenset[str]:
        """A colon in the last segment begins a custom verb. It is part of a value if no template has that verb, and one matches
        without: a misspelled verb is an unknown path, and not a path of other HTTP methods."""
        if not path.startswith("/"):
            return frozenset()
        *before, last = path[1:].split("/")
        segments = [decoded(segment) for segment in before]
        value, colon, custom = last.rpartition(":")
        if colon and (found := self._among([*segments, decoded(value)], custom, verb)):
            return found
        found = self._among([*segments, decoded(last)], "", verb)
        return found if isinstance(found, Match) or not colon else frozenset()

    def _among(self, segments: Sequence[str], custom: str, verb: str) -> Match | frozenset[str]:
        allowed: set[str] = set()
        for rules in self._tree.matches(segments, 0, custom):
            if (rule := rules.get(verb)) is not None:
                return Match(rule, [variable.value(segments) for variable in rule.template.variables])
            allowed |= rules.keys()
        return frozenset(allowed)


class _Node:
    """The rules of the paths that lead here, by custom verb and HTTP method."""

    __slots__ = ("after", "ends", "one", "rest")

    def __init__(self) -> None:
        self.after: dict[str, _Node] = {}
        self.one: _Node | None = None
        self.rest: _Node | None = None
        self.ends: dict[str, dict[str, HttpRule]] = {}

    def add(self, rule: HttpRule) -> None:
        node = self
        for segment in rule.template.segments:
            node = node._child(segment)
        node.ends.setdefault(rule.template.verb, {})[rule.verb] = rule

    def _child(self, segment: str) -> "_Node":
        if segment == ONE:
            self.one = self.one or _Node()
            return self.one
        if segment == REST:
            self.rest = self.rest or _Node()
            return self.rest
        return self.after.setdefault(segment, _Node())

    def matches(self, segments: Sequence[str], index: int, custom: str) -> Iterator[dict[str, HttpRule]]:
        """The rules of every template that matches. No HTTP method is in two of them: templates are unambiguous."""
        if index == len(segments):
            if custom in self.ends:
                yield self.ends[custom]
        else:
            segment = segments[index]
            if (literal := self.after.get(segment)) is not None:
                yield from literal.matches(segments, index + 1, custom)
            if self.one is not None and segment:
                yield from self.one.matches(segments, index + 1, custom)
        if self.rest is not None and custom in self.rest.ends and "" not in segments[index:]:
            yield self.rest.ends[custom]


def decoded(segment: str) -> str:
    """Decodes a segment once. Raises PathError for an encoded slash and dot segments, which proxies read in different ways, and
    for what is not UTF-8."""
    text = segment
    if "%" in segment:
        if _BROKEN_ESCAPE.search(segment):
            raise PathError("The path has a percent sign that begins no escape sequence.")
        try:
            text = unquote_to_bytes(segment).decode()
        except UnicodeDecodeError:
            raise PathError("The path is not UTF-8.") from None
        if "/" in text:
            raise PathError("The path has an encoded slash.")
    if text in (".", ".."):
        raise PathError("The path has a dot segment.")
    return text
