"""Messages that an attacker or a faulty client might send, generated from the descriptor and the rules of a message.

The messages are bytes, because generated classes cannot express many malformed messages. Most of them are nearly valid:
a message that cannot be parsed never reaches a handler.
"""

import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from itertools import cycle, islice
from typing import TYPE_CHECKING, Generic, TypeVar, cast
from uuid import UUID

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

from accord_rpc.fields import is_date
from buf.validate import validate_pb2

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

T = TypeVar("T")

VARINT, FIXED64, BYTES, GROUP, END_OF_GROUP, FIXED32 = range(6)

MAX_MESSAGE_BYTES = 4 * 1024 * 1024  # the limit of the gateway for one message
_MAX_DEPTH = 3  # of nested messages, because types can be recursive

_NUMBERS = (0, 1, -1, 127, 128, 2**31 - 1, 2**31, -(2**31), 2**32, 2**63 - 1, -(2**63), 2**64 - 1)
_SECONDS = (0, 1, -1, 1_800_000_000, 9_404_999_212_800, -62_135_596_801, 253_402_300_800, 2**63 - 1, -(2**63))
_NANOS = (0, 999_999_999, 1_000_000_000, -1, -999_999_999, 2**31 - 1, -(2**31))
_FLOATS = (0.0, -0.0, 1.5, float("nan"), float("inf"), float("-inf"), 1e308, 5e-324)
_UNITS = ("x", "ü", "𝕋", "🧵")
_TEXTS = (
    *(" ", "\0", "a\0b", "\x1b[31mred", "line\nbreak", "\r\n", "\t", "\x7f", "\u0085", "\u2028", "\ufeff", "\uffff"),
    *(
        "'; DROP TABLE tasks; --",
        "' OR '1'='1",
        "%",
        "_",
        "\\",
        "%_\\",
        "{0.__class__}",
        "%s%n",
        "${jndi:ldap://x}",
        "$1",
    ),
    *("../../etc/passwd", "<script>alert(1)</script>", "null", "NaN", "-1", "1e999", "true", "[]", "created_at asc"),
    *("\u202eevil\u202c", "שלום", "مرحبا", "👩‍👩‍👧‍👦", "e" + "\u0301" * 200, "ﷺ" * 50, "İıẞ", "Ａ", "a\u200bb"),
    *("00000000-0000-0000-0000-000000000000", "urn:uuid:10000000-0000-4000-8000-000000000000", "x" * 36),
    *(
        "10000000000040008000000000000000",
        "10000000-0000-4000-8000-000000000000\n",
        "{10000000-0000-4000-8000-000000000000}",
    ),
    *("a@b", "a@b.c\n", "@", "a@@b", '"a b"@c.d', "ü@ü.ü", "a@[127.0.0.1]", "x" * 255 + "@example.com"),
    *("x" * 100_000, "\U0010ffff" * 1000),
)
# Invalid in a protobuf string: half a surrogate pair, an overlong NUL, a byte outside UTF-8, an incomplete character.
_NOT_UTF8 = (
    b"\xed\xa0\x80",
    b"\xed\xa0\xbd\xed\xb0\x80",
    b"\xc0\x80",
    b"\xff",
    b"\xe2\x82",
    b"\xf5\x80\x80\x80",
    b"x\x80",
)


def hostile_messages(of: type[Message], known: Sequence[str]) -> "SearchStrategy[bytes]":
    """`known` contains strings that are meaningful to the server: ids, email addresses, page tokens."""
    descriptor = cast(Descriptor, of.DESCRIPTOR)
    message = _Generator(descriptor, known).message(descriptor)
    return _weighted(
        (40, message),
        (1, message.flatmap(_truncated)),
        (1, message.flatmap(_flipped)),
        (1, st.binary(max_size=64)),
        (1, any_of(list(_deeply_nested(descriptor)))),
    )


def heavy_messages(of: type[Message]) -> Iterator[tuple[str, bytes]]:
    """For each field, names and messages of the maximum size, with one large value or with as many values as fit."""
    for name, fields in _paths(cast(Descriptor, of.DESCRIPTOR)):
        if fields[-1].type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
            yield f"{name}: one value", _within(fields, b"x" * (MAX_MESSAGE_BYTES - 64))
        smallest = _record(fields[-1].number, *_smallest(fields[-1]))
        yield f"{name}: many values", _around(fields[:-1], smallest * ((MAX_MESSAGE_BYTES - 64) // len(smallest)))
    yield "unknown fields", b"\xf8\x07\x00" * ((MAX_MESSAGE_BYTES - 64) // 3)


class _Generator:
    def __init__(self, request: Descriptor, known: Sequence[str]) -> None:
        self._known = list(known)
        self._uuids = [text for text in known if _is_uuid(text)]
        self._emails = [text for text in known if "@" in text]
        self._names = sorted({path[1].name for _, path in _paths(request) if len(path) == 2})

    def message(self, of: Descriptor, depth: int = 0) -> "SearchStrategy[bytes]":
        fields = [self._field(field, depth) for field in of.fields]
        whole = st.tuples(*fields).map(b"".join)
        if not fields:
            return _weighted((1, whole), (1, _unknown_fields(of)))
        return _weighted(
            (40, whole),
            (1, st.permutations(fields).flatmap(lambda shuffled: st.tuples(*shuffled)).map(b"".join)),
            (1, st.tuples(whole, whole).map(b"".join)),  # singular fields occur twice
            (1, st.tuples(whole, _unknown_fields(of)).map(b"".join)),
            (1, st.tuples(whole, any_of(of.fields).flatmap(_wrong_wire_type)).map(b"".join)),
        )

    def _field(self, field: FieldDescriptor, depth: int) -> "SearchStrategy[bytes]":
        """All records of the field: none, one, or many."""
        usual, odd = self._entries(field, depth) if _is_map(field) else self._values(field, _rules(field), depth)
        record = partial(_record, field.number, _wire_type(field))
        if not field.is_repeated:
            one = _weighted((30, usual), (1, odd)).map(record)
            return _weighted((1, st.just(b"")), (8, one))
        return self._repeated(field, usual, odd, record)

    def _repeated(
        self,
        field: FieldDescriptor,
        usual: "SearchStrategy[bytes]",
        odd: "SearchStrategy[bytes]",
        record: Callable[[bytes], bytes],
    ) -> "SearchStrategy[bytes]":
        few = st.lists(_weighted((60, usual), (1, odd)), min_size=1, max_size=4)
        most = _limits(_rules(field).map if _is_map(field) else _rules(field).repeated) or [10]
        counts = any_of(sorted({max(0, limit + more) for limit in most for more in (-1, 0, 1)}))
        many = st.tuples(few, counts).map(lambda drawn: list(islice(cycle(drawn[0]), drawn[1])))
        if _rules(field).repeated.items.string.uuid:  # generates unique values, which `few` rarely contains
            many = counts.map(lambda count: [str(UUID(int=number)).encode() for number in range(count)])
        none = 1 if _rules(field).repeated.min_items else 8  # of an optional list, because each value may be invalid
        values = _weighted((none, st.just([])), (25, few), (2, many))
        return values.flatmap(
            lambda drawn: _weighted(
                (9, st.just(b"".join(map(record, drawn)))),
                # packed, even if the type does not allow it
                (1, st.just(_record(field.number, BYTES, b"".join(drawn)))),
            )
        )

    def _values(
        self, field: FieldDescriptor, rules: validate_pb2.FieldRules, depth: int
    ) -> "tuple[SearchStrategy[bytes], SearchStrategy[bytes]]":
        """Strategies for the payload of one record: for likely valid values, and for others."""
        if field.is_repeated:
            rules = rules.repeated.items
        if field.message_type is not None:
            return self._message_values(field.message_type, rules, depth)
        if field.type == FieldDescriptor.TYPE_STRING:
            usual, odd = self._texts(rules.string)
            return (st.dates().map(str).map(str.encode) if is_date(field) else usual), odd
        if field.type == FieldDescriptor.TYPE_BYTES:
            return st.binary(max_size=64), any_of(_limits(rules.bytes) or [0]).map(lambda size: b"x" * (size + 1))
        if field.type in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
            code = "<d" if field.type == FieldDescriptor.TYPE_DOUBLE else "<f"
            return st.just(struct.pack(code, 1)), any_of(_FLOATS[:6]).map(partial(struct.pack, code))
        return _numbers(field, rules)

    def _entries(self, field: FieldDescriptor, depth: int) -> "tuple[SearchStrategy[bytes], SearchStrategy[bytes]]":
        """Entries of a map: valid ones, and ones with an invalid or missing key or value."""
        assert field.message_type is not None
        key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        keys, odd_keys = self._values(key, _rules(field).map.keys, depth)
        values, odd_values = self._values(value, _rules(field).map.values, depth + 1)
        write_key, write_value = (partial(_record, each.number, _wire_type(each)) for each in (key, value))
        usual = st.tuples(keys.map(write_key), values.map(write_value)).map(b"".join)
        odd = st.one_of(
            st.tuples(odd_keys.map(write_key), values.map(write_value)).map(b"".join),
            st.tuples(keys.map(write_key), odd_values.map(write_value)).map(b"".join),
            keys.map(write_key),
            values.map(write_value),
            st.binary(max_size=16),
        )
        return usual, odd

    def _message_values(
        self, of: Descriptor, rules: validate_pb2.FieldRules, depth: int
    ) -> "tuple[SearchStrategy[bytes], SearchStrategy[bytes]]":
        odd = st.binary(max_size=16)
        if of.full_name in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
            return _times(rules), st.tuples(any_of(_SECONDS), any_of(_NANOS)).map(_time)
        if of.full_name in _JSON:
            return _jsons(of.full_name, self._known)
        if of.full_name == "google.protobuf.FieldMask":
            paths = st.lists(_weighted((40, any_of(self._names)), (1, any_of(_TEXTS))), min_size=1, max_size=3)
            return _weighted((2, st.just([])), (1, paths)).map(_mask), odd
        return (st.just(b"") if depth >= _MAX_DEPTH else self.message(of, depth + 1)), odd

    def _texts(self, rules: validate_pb2.StringRules) -> "tuple[SearchStrategy[bytes], SearchStrategy[bytes]]":
        odd = st.one_of(
            any_of(_TEXTS).map(str.encode),
            any_of(_NOT_UTF8),
            st.text(max_size=40).map(str.encode),
            st.text(st.characters(categories=["Cs", "Cc"]), max_size=4).map(
                partial(str.encode, errors="surrogatepass")
            ),
            _lengths(rules, (-1, 1)),
        )
        return self._usual_texts(rules), odd

    def _usual_texts(self, rules: validate_pb2.StringRules) -> "SearchStrategy[bytes]":
        if rules.uuid:
            return _weighted((4, any_of(self._uuids)), (1, st.uuids().map(str))).map(str.encode)
        if rules.email:
            return any_of([*self._emails, "new@example.com", "x" * 242 + "@example.com"]).map(str.encode)
        if allowed := list(getattr(rules, "in")) or [rules.const] * rules.HasField("const"):
            return any_of(allowed).map(str.encode)
        if rules.pattern and (matching := _matching(rules.pattern)) is not None:
            return matching
        # Prefer known strings that fit the rules: a short code would be rare among all of them.
        fit = [text for text in self._known if len(text) <= (rules.max_len or len(text))] or self._known
        return st.one_of(any_of(fit).map(str.encode), _lengths(rules, (0,)))


def _matching(pattern: str) -> "SearchStrategy[bytes] | None":
    """None for a pattern that is valid in RE2 but not in Python."""
    try:
        return st.from_regex(re.compile(pattern), fullmatch=True).map(str.encode)
    except re.error:
        return None


def _lengths(rules: validate_pb2.StringRules, offsets: Iterable[int]) -> "SearchStrategy[bytes]":
    """Strings with the limits of the rules as length, plus each of `offsets`."""
    lengths = sorted({max(0, limit + offset) for limit in _limits(rules) or [10] for offset in offsets})
    return st.tuples(any_of(_UNITS), any_of(lengths)).map(lambda drawn: (drawn[0] * drawn[1]).encode())


def _numbers(
    field: FieldDescriptor, rules: validate_pb2.FieldRules
) -> "tuple[SearchStrategy[bytes], SearchStrategy[bytes]]":
    if field.enum_type is not None:
        numbers = [value.number for value in field.enum_type.values]
        usual = [number for number in numbers if number not in rules.enum.not_in] or numbers
    else:
        usual = [0, 1, *_limits(getattr(rules, rules.WhichOneof("type") or "int64"))]
    encoded = partial(_number, _wire_type(field))
    odd = [*_NUMBERS, *(limit + more for limit in usual for more in (-1, 1))]
    return any_of(usual).map(encoded), any_of(odd).map(encoded)


def _times(rules: validate_pb2.FieldRules) -> "SearchStrategy[bytes]":
    named = [value for _, value in rules.timestamp.ListFields() if isinstance(value, Message)]
    ends = [value.SerializeToString() for value in named]
    return any_of([_time((0, 0)), _time((1_800_000_000, 123_456_789)), _time((-1, 0)), *ends])


def _limits(rules: Message) -> list[int]:
    """Every integer in the rules."""
    return [
        value
        for _, value in rules.ListFields()
        if isinstance(value, int) and not isinstance(value, bool) and value < 2**31
    ]


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _rules(field: FieldDescriptor) -> validate_pb2.FieldRules:
    return field.GetOptions().Extensions[validate_pb2.field]


# --- JSON: google.protobuf.Struct, Value and ListValue ----------------------------------------------------------------
_JSON = ("google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue")
_JSON_NUMBERS = (0.0, 1.0, -1.0, 1.5, 2.0**53, 2.0**53 + 2, 1e308, -0.0)


def _jsons(of: str, known: Sequence[str]) -> "tuple[SearchStrategy[bytes], SearchStrategy[bytes]]":
    """Valid nested JSON, and JSON that jsonb or a parser may reject."""
    texts = any_of([*known[:5], "a", "ü", "__proto__", "$ref"])
    leaves = st.one_of(st.none(), st.booleans(), any_of(_JSON_NUMBERS), texts)
    odd_texts = st.one_of(any_of(_TEXTS[:40]), any_of(["\0", "a\0b"]))
    odd_numbers = any_of([float("nan"), float("inf"), float("-inf"), 1e308])
    hostile = st.one_of(
        _nested(st.one_of(odd_numbers, odd_texts), st.one_of(texts, odd_texts)),
        odd_numbers,
        any_of([20, 25]).map(_deep),  # within the limit of the parser
        st.just([float(number) for number in range(1_000)]),
    )
    deep_or_long = st.one_of(
        any_of([40, 90, 200, 5_000]).map(_deep),
        any_of([1_000, 20_000]).map(lambda count: [float(number) for number in range(count)]),
        any_of([1_000, 20_000]).map(lambda count: {str(number): None for number in range(count)}),
    )
    write = partial(_json_as, of)
    raw = any_of(
        [b"\x0a\x00", b"\x0a\x02\x0a\x00" * 2, b"\x12\x03\x1a\x01\xff"]
    )  # no key, the same key twice, an invalid string
    # The hostile values are well-formed and frequent, so that some reach a handler in a short run.
    return _weighted((3, _nested(leaves, texts)), (1, hostile)).map(write), st.one_of(deep_or_long.map(write), raw)


def _nested(leaves: "SearchStrategy[object]", keys: "SearchStrategy[str]") -> "SearchStrategy[object]":
    @st.composite
    def build(draw: st.DrawFn, depth: int = 0) -> object:
        kind = draw(st.integers(0, 4)) if depth < 4 else 0
        if kind < 3:
            return draw(leaves)
        size = draw(st.integers(0, 3))
        if kind == 3:
            return [draw(build(depth + 1)) for _ in range(size)]
        return {draw(keys): draw(build(depth + 1)) for _ in range(size)}

    return build()


def _deep(depth: int) -> object:
    value: object = None
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def _json_as(of: str, value: object) -> bytes:
    if of.endswith("Struct"):
        return _struct(value if isinstance(value, dict) else {"value": value})
    if of.endswith("ListValue"):
        return _list(value if isinstance(value, list) else [value])
    return _value(value)


def _struct(value: "dict[str, object]") -> bytes:
    entries = (_record(1, BYTES, key.encode()) + _record(2, BYTES, _value(each)) for key, each in value.items())
    return b"".join(_record(1, BYTES, entry) for entry in entries)


def _list(values: "list[object]") -> bytes:
    return b"".join(_record(1, BYTES, _value(each)) for each in values)


def _value(value: object) -> bytes:
    """Iterates over nested single elements, because they are deeper than the stack of Python."""
    around: list[tuple[int, bytes]] = []
    while isinstance(value, dict | list) and len(value) == 1:
        if isinstance(value, dict):
            [(key, value)] = value.items()
            around.append((5, _record(1, BYTES, key.encode())))
        else:
            [value] = value
            around.append((6, b""))
    written = _flat_value(value)
    for kind, key_record in reversed(around):
        inner = _record(1, BYTES, key_record + _record(2, BYTES, written)) if kind == 5 else _record(1, BYTES, written)
        written = _record(kind, BYTES, inner)
    return written


def _flat_value(value: object) -> bytes:
    match value:
        case None:
            return _record(1, VARINT, _varint(0))
        case bool():
            return _record(4, VARINT, _varint(int(value)))
        case float():
            return _record(2, FIXED64, struct.pack("<d", value))
        case str():
            return _record(3, BYTES, value.encode())
        case dict():
            return _record(5, BYTES, _struct(value))
        case list():
            return _record(6, BYTES, _list(value))
    raise TypeError(type(value))


# --- on the wire ------------------------------------------------------------------------------------------------------
def _wire_type(field: FieldDescriptor) -> int:
    match field.type:
        case FieldDescriptor.TYPE_STRING | FieldDescriptor.TYPE_BYTES | FieldDescriptor.TYPE_MESSAGE:
            return BYTES
        case FieldDescriptor.TYPE_DOUBLE | FieldDescriptor.TYPE_FIXED64 | FieldDescriptor.TYPE_SFIXED64:
            return FIXED64
        case FieldDescriptor.TYPE_FLOAT | FieldDescriptor.TYPE_FIXED32 | FieldDescriptor.TYPE_SFIXED32:
            return FIXED32
        case _:
            return VARINT


def _record(number: int, wire_type: int, payload: bytes) -> bytes:
    size = _varint(len(payload)) if wire_type == BYTES else b""
    return _varint(number << 3 | wire_type) + size + payload


def _varint(value: int) -> bytes:
    value &= 2**64 - 1
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def _number(wire_type: int, value: int) -> bytes:
    if wire_type == VARINT:
        return _varint(value)
    size = 8 if wire_type == FIXED64 else 4
    return int(value % 2 ** (8 * size)).to_bytes(size, "little")


def _time(time: tuple[int, int]) -> bytes:
    return _record(1, VARINT, _varint(time[0])) + _record(2, VARINT, _varint(time[1]))


def _mask(paths: list[str]) -> bytes:
    return b"".join(_record(1, BYTES, path.encode()) for path in paths)


def _smallest(field: FieldDescriptor) -> tuple[int, bytes]:
    return _wire_type(field), {BYTES: b"", VARINT: b"\0", FIXED64: bytes(8), FIXED32: bytes(4)}[_wire_type(field)]


def _wrong_wire_type(field: FieldDescriptor) -> "SearchStrategy[bytes]":
    payloads = {
        VARINT: b"\x01",
        FIXED64: bytes(8),
        BYTES: b"x",
        FIXED32: bytes(4),
        GROUP: b"",
        END_OF_GROUP: b"",
        6: b"",
        7: b"",
    }
    wrong = [kind for kind in payloads if kind != _wire_type(field)]
    return any_of(wrong).map(lambda kind: _record(field.number, kind, payloads[kind]))


def _unknown_fields(of: Descriptor) -> "SearchStrategy[bytes]":
    free = max((field.number for field in of.fields), default=0) + 1
    numbers = any_of([free, 1000, 19_000, 2**29 - 1, 2**29, 0])
    payloads = any_of([(VARINT, b"\x01"), (VARINT, b"\xff" * 9 + b"\x01"), (VARINT, b"\xff" * 11), (FIXED64, bytes(8))])
    texts = st.binary(max_size=32).map(lambda payload: (BYTES, payload))
    return st.tuples(numbers, st.one_of(payloads, texts)).map(lambda drawn: _record(drawn[0], *drawn[1]))


def _deeply_nested(of: Descriptor) -> Iterator[bytes]:
    """Deeply nested messages and groups."""
    for number in {field.number for field in of.fields if field.message_type is not None} | {1000}:
        yield from _nested_records(number)


@cache
def _nested_records(number: int) -> tuple[bytes, ...]:
    nested = b""
    for _ in range(2_000):
        nested = _record(number, BYTES, nested)
    groups = _varint(number << 3 | GROUP) * 10_000
    balanced = _varint(number << 3 | GROUP) * 90 + _varint(number << 3 | END_OF_GROUP) * 90
    return nested, groups, balanced


def _truncated(message: bytes) -> "SearchStrategy[bytes]":
    return st.integers(0, max(0, len(message) - 1)).map(lambda size: message[:size])


def _flipped(message: bytes) -> "SearchStrategy[bytes]":
    if not message:
        return st.just(message)
    places = st.integers(0, len(message) - 1)
    return st.tuples(places, st.integers(1, 255)).map(
        lambda drawn: message[: drawn[0]] + bytes([message[drawn[0]] ^ drawn[1]]) + message[drawn[0] + 1 :]
    )


class _Choices(Generic[T]):
    """The argument of the composites below. Unlike the combinators of hypothesis it has a short repr: theirs would be endless."""

    def __init__(self, choices: Sequence[T]) -> None:
        self._choices = choices
        self._places = st.integers(0, len(choices) - 1)

    def drawn(self, draw: st.DrawFn) -> T:
        return self._choices[draw(self._places)]


# Defined once, because each definition of a composite takes a millisecond.
@st.composite
def _value_of(draw: st.DrawFn, choices: _Choices[T]) -> T:
    return choices.drawn(draw)


@st.composite
def _drawn_from(draw: st.DrawFn, choices: "_Choices[SearchStrategy[T]]") -> T:
    return draw(choices.drawn(draw))


def any_of(values: Sequence[T]) -> "SearchStrategy[T]":
    return _value_of(_Choices(values))


def _weighted(*choices: "tuple[int, SearchStrategy[T]]") -> "SearchStrategy[T]":
    """Draws from one of the strategies, with the given weights."""
    return _drawn_from(_Choices([strategy for weight, strategy in choices for _ in range(weight)]))


# --- through descriptors ----------------------------------------------------------------------------------------------
Path = tuple[FieldDescriptor, ...]


def _paths(of: Descriptor, above: Path = ()) -> Iterator[tuple[str, Path]]:
    """Every field of the message and of nested messages, with the path of fields that leads to it."""
    for field in of.fields:
        path = (*above, field)
        yield ".".join(step.name for step in path), path
        if field.message_type is not None and len(path) <= _MAX_DEPTH:
            yield from _paths(field.message_type, path)


def _around(above: Path, payload: bytes) -> bytes:
    for field in reversed(above):
        payload = _record(field.number, BYTES, payload)
    return payload


def _within(path: Path, payload: bytes) -> bytes:
    return _around(path[:-1], _record(path[-1].number, BYTES, payload))


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
