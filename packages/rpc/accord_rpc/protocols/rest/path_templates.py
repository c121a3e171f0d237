"""The path templates of `google.api.http`: `/v1/tasks/{task_id}:undelete`."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

ONE: Final = "*"
REST: Final = "**"
_PART_SEPARATOR: Final = re.compile(r"/(?![^{]*\})")
_VARIABLE: Final = re.compile(r"\{([a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)*)(?:=([^{}]+))?\}")
_SEGMENT: Final = re.compile(r"\*\*?|[A-Za-z0-9._~-]+")
_CUSTOM_VERB: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*")


class TemplateError(ValueError):
    """A template that does not follow the grammar, or that no request could match."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A field whose value is part of the path: the segments from `start` to `stop`, or to the last one."""

    field: str
    start: int
    stop: int | None

    def value(self, segments: Sequence[str]) -> str:
        return "/".join(segments[self.start : self.stop])


@dataclass(frozen=True, slots=True)
class Template:
    """`segments` are literals, `*` for one segment, and `**`, which is the last one, for any number of segments.

    `verb` is the custom verb; empty if there is none."""

    text: str
    segments: tuple[str, ...]
    variables: tuple[Variable, ...]
    verb: str

    @classmethod
    def parse(cls, text: str) -> "Template":
        path, separator, verb = text.partition(":")
        if separator and not _CUSTOM_VERB.fullmatch(verb):
            raise TemplateError(f"{text!r} has a custom verb that is not a word")
        if not path.startswith("/"):
            raise TemplateError(f"{text!r} does not begin with a slash")
        segments: list[str] = []
        variables = [variable for part in _PART_SEPARATOR.split(path[1:]) if (variable := _read(part, segments))]
        template = cls(text, tuple(segments), tuple(variables), verb)
        if fault := next(_faults(template), None):
            raise TemplateError(f"{text!r} {fault}")
        return template

    @property
    def is_literal(self) -> bool:
        return not {ONE, REST}.intersection(self.segments)

    @property
    def shape(self) -> tuple[tuple[str, ...], str]:
        """Templates of the same shape match the same paths."""
        return self.segments, self.verb

    @property
    def documented(self) -> str:
        """The template with the names that OpenAPI shows. Templates of one shape have one documented form."""
        return _VARIABLE.sub(lambda variable: f"{{{parameter_name(variable[1])}}}", self.text)

    def overlaps(self, other: "Template") -> bool:
        """Whether a path matches both."""
        return self.verb == other.verb and _overlap(self.segments, other.segments)


def parameter_name(field: str) -> str:
    """The name of a path parameter: `task_id` for the fields `task_id` and `task.id`, `account_id` for `member.account_id`."""
    parent, _, name = field.rpartition(".")
    return f"{parent.rpartition('.')[2]}_{name}" if parent and name == "id" else name


def _read(part: str, segments: list[str]) -> Variable | None:
    """Appends the segments of a part of the path to `segments`. Returns its variable, if it is one."""
    variable = _VARIABLE.fullmatch(part)
    if variable is None:
        segments.append(part)
        return None
    start, pattern = len(segments), (variable[2] or ONE).split("/")
    segments += pattern
    return Variable(variable[1], start, None if pattern[-1] == REST else len(segments))


def _faults(template: Template) -> Iterator[str]:
    for segment in template.segments:
        if not _SEGMENT.fullmatch(segment) or segment in (".", ".."):
            yield f"has a segment {segment!r}, which is neither a literal, '*', '**' nor a variable"
    if REST in template.segments[:-1]:
        yield "has '**' before its last segment"
    if template.segments[0] in (ONE, REST):
        yield "does not begin with a literal segment"
    names = [variable.field for variable in template.variables]
    if len(set(names)) < len(names):
        yield "names one field twice"


def _overlap(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    for a, b in zip(one, other, strict=False):
        if REST in (a, b):
            return True
        if ONE not in (a, b) and a != b:
            return False
    shorter, longer = sorted((one, other), key=len)
    return len(shorter) == len(longer) or longer[len(shorter) :] == (REST,)
