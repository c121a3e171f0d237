"""The generator of hostile messages: what it must contain for maps and JSON."""

import math
from collections.abc import Iterator
from contextlib import suppress

import pytest
from google.protobuf import descriptor_pool, struct_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from hypothesis import HealthCheck, Phase, given, settings

from tests.api.hostile_messages import heavy_messages, hostile_messages

TEXT, NUMBER, MESSAGE = (
    FieldDescriptorProto.TYPE_STRING,
    FieldDescriptorProto.TYPE_INT32,
    FieldDescriptorProto.TYPE_MESSAGE,
)
REPEATED = FieldDescriptorProto.LABEL_REPEATED


@pytest.fixture(scope="module")
def request_type() -> type[Message]:
    """A message with a map of text, a map of messages, and each kind of JSON."""
    file = FileDescriptorProto(name="maps.proto", package="maps", syntax="proto3")
    file.dependency.append("google/protobuf/struct.proto")
    request = file.message_type.add(name="Request")
    for number, (name, key, value) in enumerate([("Labels", TEXT, TEXT), ("Settings", NUMBER, MESSAGE)], 1):
        entry = request.nested_type.add(name=f"{name}Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, type=key, label=FieldDescriptorProto.LABEL_OPTIONAL)
        of_value = entry.field.add(name="value", number=2, type=value, label=FieldDescriptorProto.LABEL_OPTIONAL)
        if value == MESSAGE:
            of_value.type_name = ".google.protobuf.Struct"
        request.field.add(
            name=name.lower(), number=number, type=MESSAGE, type_name=f".maps.Request.{name}Entry", label=REPEATED
        )
    for number, kind in enumerate(("Struct", "Value", "ListValue"), 3):
        request.field.add(
            name=kind.lower(),
            number=number,
            type=MESSAGE,
            type_name=f".google.protobuf.{kind}",
            label=FieldDescriptorProto.LABEL_OPTIONAL,
        )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("maps.Request"))


@pytest.fixture(scope="module")
def parsed(request_type: type[Message]) -> list[Message]:
    """The messages that a parser takes."""
    found: list[Message] = []

    @settings(
        max_examples=500,
        database=None,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(hostile_messages(request_type, ["a known id", "ada@example.com"]))
    def collect(message: bytes) -> None:
        with suppress(DecodeError):
            found.append(request_type.FromString(message))

    collect()
    assert len(found) > 100
    return found


def leaves(value: Value, depth: int = 1) -> Iterator[tuple[int, object]]:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        for key, inner in value.struct_value.fields.items():
            yield depth, key
            yield from leaves(inner, depth + 1)
    elif kind == "list_value":
        for inner in value.list_value.values:
            yield from leaves(inner, depth + 1)
    else:
        yield depth, getattr(value, kind) if kind else None


def as_value(json: Message) -> Value:
    value = Value()
    value.ParseFromString(
        {
            "Struct": Value(struct_value=Struct.FromString(json.SerializeToString())),
            "ListValue": Value(list_value=ListValue.FromString(json.SerializeToString())),
        }[json.DESCRIPTOR.name].SerializeToString()
        if json.DESCRIPTOR.name != "Value"
        else json.SerializeToString()
    )
    return value


@pytest.mark.parametrize("kind", ["struct", "value", "listvalue"])
def test_json_has_nan_nul_depth_and_size(parsed: list[Message], kind: str) -> None:
    seen = [found for message in parsed for found in leaves(as_value(getattr(message, kind)))]
    numbers = [value for _, value in seen if isinstance(value, float)]
    texts = [value for _, value in seen if isinstance(value, str)]
    assert any(math.isnan(number) for number in numbers)
    assert any(math.isinf(number) for number in numbers)
    assert any("\0" in text for text in texts)
    assert max(depth for depth, _ in seen) >= 20
    assert len(seen) > 1000


def test_maps_have_few_and_many_entries(parsed: list[Message]) -> None:
    sizes = [(len(message.labels), len(message.settings)) for message in parsed]  # type: ignore[attr-defined]
    assert max(labels for labels, _ in sizes) > 1
    assert max(entries for _, entries in sizes) > 1
    assert any(labels == 0 for labels, _ in sizes)


def test_heavy_messages_fill_maps_and_json(request_type: type[Message]) -> None:
    names = [name for name, _ in heavy_messages(request_type)]
    assert any(name.startswith("labels") for name in names)
    assert any(name.startswith("struct") for name in names)
