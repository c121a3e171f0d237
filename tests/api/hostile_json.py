"""JSON documents and REST requests that an attacker or a faulty client might send, made from hostile messages."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote

from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from tests.api.faces import CONNECT_JSON, REST, Connect, Face, GrpcWeb, Request
from tests.api.hostile_messages import MAX_MESSAGE_BYTES, any_of, hostile_messages
from tests.api.routes import Document, Target, route

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


class Raw(bytes):
    """A part of a document that is written as it is, valid or not."""


class Pairs(list[tuple[str, Any]]):
    """An object whose names may be repeated."""


OTHER_TYPES: Final[tuple[object, ...]] = (
    *(None, True, False, 0, -1, 1.5, 10**20, "", "x", "9223372036854775808", [], {}, [[]], {"a": 1}, [None]),
    *map(Raw, (b"1e999", b"-1e999", b"1E2", b"-0", b"1e-999", b"9" * 400, b"9" * 5000, b"0." + b"1" * 5000)),
    *map(Raw, (b"NaN", b"Infinity", b"-Infinity", b"01", b"+1", b".5", b"1.", b"0x10", b"'x'", b"undefined", b"")),
    *map(Raw, (b'"\xff"', b'"\xed\xa0\x80"', b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\u0000"', b'"\\x41"', b'"a\nb"')),
    *map(Raw, (b"[" * 64 + b"]" * 64, b'{"a":' * 64 + b"1" + b"}" * 64, b"[" * 5000, b"[" * 100_000 + b"]" * 100_000)),
    *map(Raw, (b"[" + b"0," * 100_000 + b"0]", b'{"a":0,' + b'"b":0,' * 10_000 + b'"c":0}')),
)
_NAMES: Final = ("unknown", "", "__proto__", "@type", "a" * 1000, "\0", "ü", "title\n")
_WHOLE: Final = tuple(
    map(
        Raw,
        (b"", b" ", b"null", b"[]", b"0", b'""', b"true", b"{", b"}", b"{}{}", b"{},", b"//\n{}", b"\xef\xbb\xbf{}"),
    )
)
PARAMETERS: Final = (
    *("unknown=1", "=", "&", "%", "%zz=1", "a%00b=1", "%ff=1", "a.b.c=1", "__class__=x", "requestId", "pageSize=%ff"),
    *(
        "pageSize=1&pageSize=2",
        "page_size=1&pageSize=1",
        "pageSize=1e1",
        "pageSize=",
        "pageSize=%31",
        "pageToken=%ed%a0%80",
    ),
)
_VALUES: Final = ("", "x", "-1", "\ufeff", "9" * 400)
SEGMENTS: Final = (
    "",
    ".",
    "..",
    "%2e%2e",
    "%2F",
    "%5c",
    "%00",
    "%ff",
    "%zz",
    "%25",
    "a:b",
    "a%3Ab",
    ";",
    "*",
    "{id}",
    "~",
)


def hostile_requests(face: Face, method: MethodDescriptor, known: Sequence[str]) -> "SearchStrategy[Request]":
    """As the face sends them. `known` as in `hostile_messages`."""
    kind = GetMessageClass(method.input_type)
    messages = hostile_messages(kind, known)
    if face is REST:
        return _rest(method, kind, messages)
    if face is CONNECT_JSON:
        return _documents(kind, messages).map(lambda body: CONNECT_JSON.of_bytes(method, body))
    return messages.map(lambda message: cast("Connect | GrpcWeb", face).of_bytes(method, message))


def document_of(kind: type[Message], message: bytes) -> Document:
    """Empty if the message has no JSON form."""
    try:
        document: Document = json_format.MessageToDict(kind.FromString(message))
    except (DecodeError, json_format.Error, ValueError, OverflowError):
        return {}
    return document


def _documents(kind: type[Message], messages: "SearchStrategy[bytes]") -> "SearchStrategy[bytes]":
    @st.composite
    def build(draw: st.DrawFn) -> bytes:
        return draw(_mutated(document_of(kind, draw(messages))))

    return build()


def _rest(
    method: MethodDescriptor, kind: type[Message], messages: "SearchStrategy[bytes]"
) -> "SearchStrategy[Request]":
    found = route(method)
    assert found is not None

    @st.composite
    def build(draw: st.DrawFn) -> Request:
        target = found.target(document_of(kind, draw(messages)))
        body = None if target.body is None else draw(_mutated(target.body))
        return Request(body, target.verb, draw(_mutated_target(target, found.template)), target.operation)

    return build()


def heavy_documents(method: MethodDescriptor) -> Iterator[tuple[str, bytes]]:
    """Names, and documents of the maximum size."""
    for field in (None, *method.input_type.fields):
        name = json.dumps(field.json_name if field else "unknown").encode()
        for kind, (begin, part, end) in _HEAVY.items():
            count = (MAX_MESSAGE_BYTES - 1024) // len(part)
            yield f"{name.decode()}: {kind}", b"{" + name + b":" + begin + part * count + end + b"}"
    name = next((json.dumps(field.json_name).encode() for field in method.input_type.fields), b'"a"')
    yield (
        "one name many times",
        b"{" + (name + b":1,") * ((MAX_MESSAGE_BYTES - 1024) // (len(name) + 3)) + name + b":1}",
    )


_HEAVY: Final = {
    "one text": (b'"', b"x", b'"'),
    "escapes": (b'"', b"\\u0041", b'"'),
    "values": (b"[", b"0,", b"0]"),
    "objects": (b"[", b"{},", b"{}]"),
    "names": (b"{", b'"a":0,', b'"a":0}'),
    "depth": (b"", b"[", b""),
    "digits": (b"", b"9", b""),
    "spaces": (b"", b" ", b"0"),
}

# --- documents --------------------------------------------------------------------------------------------------------
# Weighted: hypothesis prefers the first and the last.
_CHANGES: Final = (*[None] * 5, "all of it", "its end", *["an object"] * 6, *[None] * 5)


@st.composite
def _mutated(draw: st.DrawFn, document: Document) -> bytes:
    """Most documents stay as they are: they reach the handler."""
    match draw(any_of(_CHANGES)):
        case "all of it":
            return bytes(draw(any_of(_WHOLE)))
        case "its end":
            text = written(document)
            return text[: draw(st.integers(0, max(0, len(text) - 1)))]
        case "an object":
            return written(draw(_with_change(document)))
        case _:
            return written(document)


@st.composite
def _with_change(draw: st.DrawFn, document: Document) -> object:
    """Changes one object in it: the type of a value, another name, or one name twice."""
    objects = list(_objects(document))
    chosen = draw(any_of(objects))
    pairs = Pairs(chosen.items())
    change = draw(st.integers(0, 2)) if pairs else 2
    if change == 2:
        pairs.append((draw(any_of(_NAMES)), draw(any_of(OTHER_TYPES))))
    else:
        place = draw(st.integers(0, len(pairs) - 1))
        name, value = pairs[place]
        if change == 1:
            spelling = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
            pairs.append((draw(any_of([name, spelling])), value))
        else:
            pairs[place] = (name, draw(any_of(OTHER_TYPES)))
    return _replaced(document, chosen, pairs)


def _objects(value: object) -> "list[Document]":
    if isinstance(value, dict):
        return [value, *(found for each in value.values() for found in _objects(each))]
    if isinstance(value, list):
        return [found for each in value[:3] for found in _objects(each)]
    return []


def _replaced(value: object, old: object, new: object) -> object:
    if value is old:
        return new
    if isinstance(value, dict):
        return {name: _replaced(each, old, new) for name, each in value.items()}
    if isinstance(value, list):
        return [_replaced(each, old, new) for each in value]
    return value


def written(value: object) -> bytes:
    match value:
        case Raw():
            return value
        case Pairs():
            return b"{" + b",".join(json.dumps(name).encode() + b":" + written(each) for name, each in value) + b"}"
        case dict():
            return written(Pairs(value.items()))
        case list():
            return b"[" + b",".join(map(written, value)) + b"]"
        case _:
            return json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")


# --- URLs -------------------------------------------------------------------------------------------------------------
_URL_CHANGES: Final = (*[None] * 4, "a parameter", "a value", "a segment", *[None] * 4)


@st.composite
def _mutated_target(draw: st.DrawFn, target: Target, template: str) -> str:
    match draw(any_of(_URL_CHANGES)):
        case "a parameter":
            return _with_parameter(str(target), draw(any_of(PARAMETERS)))
        case "a value" if target.query:
            name, _ = draw(any_of(target.query))
            return _with_parameter(str(target), f"{name}={quote(draw(any_of(_VALUES)))}")
        case "a segment" if "{" in template:
            segments = target.path.split("/")
            place, segment = next(found for found in enumerate(template.split("/")) if "{" in found[1])
            segments[place] = draw(any_of(SEGMENTS)) + segment.partition("}")[2]
            return str(replace(target, path="/".join(segments)))
        case _:
            return str(target)


def _with_parameter(target: str, parameter: str) -> str:
    return f"{target}{'&' if '?' in target else '?'}{parameter}"
