"""The field language: `name: type(limits)[count]? options = default`.

    number: string(1..32) unique            required text, at most 32 characters, unique among the living of the owner
    code: string(3) pattern "^[A-Z]+$"      exactly 3 characters that match the expression
    notes: string(0..500)? multiline        optional text with tabs and line breaks
    amount_cents: int64(0..)                an integer of at least 0; int32, int64, float
    paid: bool = true                       bool, with a default
    status: enum(draft, sent) = draft       one of the values
    due_at: timestamp?                      timestamp, date
    settings: json                          a JSON object
    token: uuid sensitive                   a UUID, kept out of logs
    customer: ref(customers, restrict)      the id of a customer; restrict, cascade or set null
    labels: string(1..30)[0..20]            an array of scalars: at most 20 labels; `[]`: at most 100

Options: `unique`, `sensitive`, `immutable` (set when created), `output` (set by the server), `multiline`, `pattern "…"`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from accord_generator.errors import Refused
from accord_generator.names import IDENTIFIER, field_name_fault


class Kind(StrEnum):
    STRING = "string"
    INT32 = "int32"
    INT64 = "int64"
    FLOAT = "float"
    BOOL = "bool"
    ENUM = "enum"
    TIMESTAMP = "timestamp"
    DATE = "date"
    JSON = "json"
    UUID = "uuid"
    REF = "ref"


class OnDelete(StrEnum):
    """What happens to a row when the row that it refers to is removed."""

    CASCADE = "cascade"
    RESTRICT = "restrict"
    SET_NULL = "set null"


NUMBERS: Final = frozenset((Kind.INT32, Kind.INT64, Kind.FLOAT))
LONGEST_TEXT: Final = 100_000
# An index entry has at most 2704 bytes, and a character up to 4.
LONGEST_UNIQUE_TEXT: Final = 500
MOST_ITEMS: Final = 1000
DEFAULT_ITEMS: Final = 100
_INTEGERS: Final = {Kind.INT32: 2**31, Kind.INT64: 2**63}

Number = int | Decimal
Default = bool | int | Decimal | str


@dataclass(frozen=True, slots=True)
class Limits:
    """Inclusive. None: no limit."""

    least: Number | None = None
    most: Number | None = None

    def admits(self, number: Number) -> bool:
        return (self.least is None or number >= self.least) and (self.most is None or number <= self.most)


@dataclass(frozen=True, slots=True)
class Reference:
    """The plural name of a feature, and what happens when its row is removed."""

    feature: str
    on_delete: OnDelete


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a resource, and its column. `name` is that of both: `customer_id` for a reference to a customer."""

    name: str
    kind: Kind
    limits: Limits = Limits()
    pattern: str | None = None
    multiline: bool = False
    values: tuple[str, ...] = ()
    reference: Reference | None = None
    # The number of elements of an array; None if the field is none.
    items: Limits | None = None
    optional: bool = False
    unique: bool = False
    sensitive: bool = False
    immutable: bool = False
    output: bool = False
    default: Default | None = None
    # As it was written.
    source: str = field(default="", compare=False)

    @property
    def is_array(self) -> bool:
        return self.items is not None

    @property
    def is_settable(self) -> bool:
        """Whether callers give it when they create the resource."""
        return not self.output

    @property
    def is_changeable(self) -> bool:
        """Whether callers can change it."""
        return not (self.output or self.immutable)

    @property
    def must_be_given(self) -> bool:
        """Whether a request to create the resource is invalid without it."""
        if self.optional or self.output or self.default is not None:
            return False
        if self.items is not None:
            return bool(self.items.least)
        if self.kind is Kind.STRING or self.kind in NUMBERS:
            return not self.admits_zero
        return self.kind in (Kind.ENUM, Kind.TIMESTAMP, Kind.DATE, Kind.UUID, Kind.REF)

    @property
    def admits_zero(self) -> bool:
        """Whether the empty text or 0 is within the limits."""
        if self.kind is Kind.STRING:
            return not self.limits.least
        return self.limits.admits(0)


def parse_fields(sources: Sequence[str]) -> list[Field]:
    """Raises Refused with the faults of all fields."""
    faults, parsed = list[str](), list[Field]()
    for source in sources:
        try:
            parsed.append(parse_field(source))
        except Refused as refused:
            faults += refused.faults
    names = [each.name for each in parsed]
    faults += [
        f"field {name!r}: there are two with this name" for name in dict.fromkeys(names) if names.count(name) > 1
    ]
    if faults:
        raise Refused(faults)
    return parsed


def parse_field(source: str) -> Field:
    """Raises Refused."""
    try:
        parsed = _Parser(source).field()
    except _SyntaxFault as fault:
        raise Refused([f"field {source!r}, character {fault.position + 1}: {fault}"]) from None
    if faults := [f"field {source!r}: {fault}" for fault in _faults(parsed)]:
        raise Refused(faults)
    return parsed


# --- syntax -----------------------------------------------------------------------------------------------------------
class _SyntaxFault(Exception):
    def __init__(self, position: int, message: str) -> None:
        super().__init__(message)
        self.position = position


_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<number>-?\d[\d_]*(?:\.(?!\.)\d+)?)"""
    r"""|(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<range>\.\.)|(?P<sign>[:(),\[\]?=]))"""
)
_OPTIONS: Final = ("unique", "sensitive", "immutable", "output", "multiline", "pattern")


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int


def _tokens(source: str) -> Iterator[_Token]:
    position = 0
    while source[position:].strip():
        match = _TOKEN.match(source, position)
        if match is None or match.lastgroup is None:
            start = position + len(source[position:]) - len(source[position:].lstrip())
            raise _SyntaxFault(start, f"{source[start]!r} is not understood")
        yield _Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup))
        position = match.end()
    yield _Token("end", "", len(source))


class _Parser:
    def __init__(self, source: str) -> None:
        self._source = source
        self._tokens = list(_tokens(source))
        self._next = 0

    def field(self) -> Field:
        name = self._take("word", "the name of a field").text
        self._sign(":", "after the name, a colon and a type: title: string(1..100)")
        parsed = self._type(name)
        if self._accept("["):
            parsed = replace(parsed, items=self._items())
        if self._accept("?"):
            parsed = replace(parsed, optional=True)
        parsed = self._options(parsed)
        if self._accept("="):
            parsed = replace(parsed, default=self._default(parsed))
        if self._peek().kind != "end":
            raise self._fault(f"{self._peek().text!r} is not expected here. Options are {', '.join(_OPTIONS)}")
        return replace(parsed, source=self._source)

    def _type(self, name: str) -> Field:
        token = self._take("word", "a type")
        try:
            kind = Kind(token.text)
        except ValueError:
            known = ", ".join(Kind)
            raise _SyntaxFault(token.position, f"there is no type {token.text!r}. The types are {known}") from None
        parsed = Field(name, kind)
        if kind is Kind.STRING or kind in NUMBERS:
            return replace(parsed, limits=self._limits(kind)) if self._accept("(") else parsed
        if kind is Kind.ENUM:
            self._sign("(", "the values of the enum: enum(draft, sent)")
            return replace(parsed, values=self._words())
        if kind is Kind.REF:
            self._sign("(", "the feature that it refers to: ref(customers)")
            return self._reference(parsed)
        return parsed

    def _limits(self, kind: Kind, close: str = ")") -> Limits:
        """`1..32`, `0..`, `..10`, `3`."""
        least = self._number(kind)
        if self._peek().kind == "range":
            self._next += 1
            limits = Limits(least, self._number(kind))
        elif least is not None:
            limits = Limits(least, least)
        else:
            raise self._fault("limits are expected: 1..32, 0.. or ..10")
        self._sign(close, f"the limits end with {close!r}")
        return limits

    def _number(self, kind: Kind) -> Number | None:
        token = self._peek()
        if token.kind != "number":
            return None
        self._next += 1
        text = token.text.replace("_", "")
        if kind is Kind.FLOAT:
            return Decimal(text)
        if "." in text:
            raise _SyntaxFault(token.position, f"{text} is not an integer")
        return int(text)

    def _items(self) -> Limits:
        if self._accept("]"):
            return Limits(0, DEFAULT_ITEMS)
        limits = self._limits(Kind.INT32, "]")
        return Limits(limits.least or 0, limits.most)

    def _words(self) -> tuple[str, ...]:
        words = [self._take("word", "a value").text]
        while self._accept(","):
            words.append(self._take("word", "a value").text)
        self._sign(")", "the values end with ')'")
        return tuple(words)

    def _reference(self, parsed: Field) -> Field:
        feature, on_delete = self._take("word", "the name of a feature").text, None
        if self._accept(","):
            token = self._take("word", "cascade, restrict or set null")
            text = f"set {self._take('word', 'set null').text}" if token.text == "set" else token.text
            try:
                on_delete = OnDelete(text)
            except ValueError:
                raise _SyntaxFault(token.position, f"{text!r} is not cascade, restrict or set null") from None
        self._sign(")", "a closing parenthesis")
        optional = self._peek().text == "?"
        default = OnDelete.SET_NULL if optional else OnDelete.RESTRICT
        name = parsed.name if parsed.name.endswith("_id") else f"{parsed.name}_id"
        return replace(parsed, name=name, reference=Reference(feature, on_delete or default))

    def _options(self, parsed: Field) -> Field:
        while self._peek().kind == "word":
            token = self._take("word", "an option")
            if token.text not in _OPTIONS:
                raise _SyntaxFault(token.position, f"{token.text!r} is no option. Options are {', '.join(_OPTIONS)}")
            if token.text == "pattern":
                parsed = replace(parsed, pattern=_unquoted(self._take("string", 'an expression in quotes: "^[A-Z]+$"')))
            else:
                option: dict[str, Any] = {token.text: True}
                parsed = replace(parsed, **option)
        return parsed

    def _default(self, parsed: Field) -> Default:
        token = self._peek()
        self._next += token.kind != "end"
        if token.kind == "string":
            return _unquoted(token)
        if token.kind == "number":
            self._next -= 1
            number = self._number(parsed.kind)
            assert number is not None
            return number
        if token.kind == "word":
            return {"true": True, "false": False}.get(token.text, token.text)
        raise _SyntaxFault(token.position, "a default is expected: a value, a number, true, false or a text in quotes")

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, kind: str, expected: str) -> _Token:
        token = self._peek()
        if token.kind != kind:
            raise self._fault(f"{expected} is expected")
        self._next += 1
        return token

    def _accept(self, sign: str) -> bool:
        if self._peek().kind == "sign" and self._peek().text == sign:
            self._next += 1
            return True
        return False

    def _sign(self, sign: str, expected: str) -> None:
        if not self._accept(sign):
            raise self._fault(f"expected: {expected}")

    def _fault(self, message: str) -> _SyntaxFault:
        return _SyntaxFault(self._peek().position, message)


def _unquoted(token: _Token) -> str:
    """Only the quote is escaped: a backslash belongs to the expression."""
    quote = token.text[0]
    return token.text[1:-1].replace(f"\\{quote}", quote)


# --- rules ------------------------------------------------------------------------------------------------------------
def _faults(field: Field) -> Iterator[str]:
    if fault := field_name_fault(field.name):
        yield fault
    yield from _limit_faults(field)
    if field.kind is Kind.ENUM:
        yield from _enum_faults(field)
    if field.is_array:
        yield from _array_faults(field)
    yield from _option_faults(field)
    if field.default is not None:
        yield from _default_faults(field)


def _limit_faults(field: Field) -> Iterator[str]:
    least, most = field.limits.least, field.limits.most
    if least is not None and most is not None and least > most:
        yield f"the lower limit {least} is above the upper limit {most}"
    if field.kind is Kind.STRING:
        if most is None:
            yield "a string needs its greatest length: string(1..256)"
        elif not 1 <= most <= LONGEST_TEXT:
            yield f"the greatest length of a string is 1 to {LONGEST_TEXT}. For larger content use json, or store a file"
        if least is not None and least < 0:
            yield "a length is at least 0"
    if field.kind in _INTEGERS:
        end = _INTEGERS[field.kind]
        for limit in (least, most):
            if limit is not None and not -end <= limit < end:
                yield f"{limit} is not an {field.kind}. Use int64, or a string"


def _enum_faults(field: Field) -> Iterator[str]:
    for value in field.values:
        if not IDENTIFIER.fullmatch(value) or len(value) > 63:
            yield f"the value {value!r} needs small letters, digits and single underscores, at most 63: in_progress"
        elif value == "unspecified":
            yield "`unspecified` is the value of an unset enum. Choose another"
    for value in dict.fromkeys(field.values):
        if field.values.count(value) > 1:
            yield f"the value {value!r} is there twice"


def _array_faults(field: Field) -> Iterator[str]:
    assert field.items is not None
    if field.kind in (Kind.JSON, Kind.REF, Kind.TIMESTAMP, Kind.DATE):
        yield f"an array of {field.kind} is not possible. Use a child table: --parent, or ref() in a feature between the two"
    if field.items.most is None or not 1 <= field.items.most <= MOST_ITEMS:
        yield f"an array needs its greatest number of elements, 1 to {MOST_ITEMS}: [0..20]"
    if field.items.least and field.items.most and field.items.least > field.items.most:
        yield f"the lower limit {field.items.least} is above the upper limit {field.items.most}"
    if field.kind is Kind.STRING and field.multiline:
        yield "the elements of an array cannot be multiline"
    if field.optional:
        yield "an array is never unset, only empty. Remove the question mark"
    if field.unique:
        yield "an array cannot be unique"
    if field.default is not None:
        yield "the default of an array is the empty one. Remove the default"


def _option_faults(field: Field) -> Iterator[str]:
    if field.kind is not Kind.STRING and (field.pattern is not None or field.multiline):
        yield f"`pattern` and `multiline` are options of strings, not of {field.kind}"
    if field.pattern is not None:
        if field.multiline:
            yield "`multiline` sets a pattern. Remove one of the two"
        yield from _pattern_faults(field)
    if field.unique and field.kind in (Kind.JSON, Kind.BOOL, Kind.FLOAT):
        yield f"a {field.kind} cannot be unique"
    if field.unique and field.kind is Kind.STRING and (field.limits.most or 0) > LONGEST_UNIQUE_TEXT:
        yield f"a unique string has at most {LONGEST_UNIQUE_TEXT} characters, because an index has no room for longer ones"
    if field.unique and field.default is not None:
        yield "a unique field cannot have a default: the second row would have the same value"
    if field.output and field.immutable:
        yield "an output field is never set by callers, so `immutable` has no effect. Remove one of the two"
    has_default = field.default is not None or field.is_array or field.kind in (Kind.BOOL, Kind.JSON)
    if field.output and not (field.optional or has_default):
        yield "the server sets an output field, and a new row has none yet. Add `?` or a default"
    if field.reference and field.reference.on_delete is OnDelete.SET_NULL and not field.optional:
        yield "`set null` needs a field that can be unset. Add `?`"


def _pattern_faults(field: Field) -> Iterator[str]:
    assert field.pattern is not None
    try:
        expression = re.compile(re.sub(r"\\[pP]\{\^?\w+\}|\\[pP]\w", ".", field.pattern))
    except re.error as error:
        yield f"the pattern is no regular expression: {error}"
        return
    if re.search(r"\(\?[=!<]|\\[1-9]", field.pattern):
        yield "the pattern has look-around or a back reference, which RE2 has not"
    if field.admits_zero and not field.optional and not expression.search(""):
        yield "the pattern refuses the empty text, so the length begins at 1"


def _default_faults(field: Field) -> Iterator[str]:
    default = field.default
    if field.optional:
        yield "a field with a default is never unset. Remove the question mark or the default"
    if field.is_array:
        return
    if field.kind is Kind.ENUM and default not in field.values:
        yield f"the default {default!r} is not one of the values {', '.join(field.values)}"
    elif field.kind is Kind.BOOL and not isinstance(default, bool):
        yield "the default of a bool is true or false"
    elif field.kind in NUMBERS:
        if isinstance(default, bool) or not isinstance(default, int | Decimal):
            yield f"the default of {field.kind} is a number"
        elif not field.limits.admits(default):
            yield f"the default {default} is outside the limits"
    elif field.kind is Kind.STRING:
        yield from _text_default_faults(field)
    elif field.kind in (Kind.TIMESTAMP, Kind.DATE) and default != "now":
        yield f"the default of a {field.kind} can only be `now`"
    elif field.kind in (Kind.JSON, Kind.UUID, Kind.REF):
        yield f"a {field.kind} has no default here" + (": a new row has {}" if field.kind is Kind.JSON else "")


def _text_default_faults(field: Field) -> Iterator[str]:
    if not isinstance(field.default, str):
        yield 'the default of a string is a text in quotes: = "draft"'
    elif not field.limits.admits(len(field.default)):
        yield f"the default has {len(field.default)} characters, which is outside the limits"
    elif not field.multiline and re.search(r"[\x00-\x1f\x7f]", field.default):
        yield "the default has control characters"
    elif field.pattern and not re.search(re.sub(r"\\[pP]\{\^?\w+\}|\\[pP]\w", ".", field.pattern), field.default):
        yield "the default does not match the pattern"
