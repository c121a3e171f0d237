"""Messages and their rules as JSON Schema."""

import re
import sys
import unicodedata
from typing import Any, cast

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import Message

from accord.accounts.v1.accounts_pb2 import SignInRequest
from accord.tasks.v1.tasks_pb2 import CreateTaskRequest, Task
from accord_rpc.openapi.comments import Comments
from accord_rpc.openapi.schemas import Schemas
from buf.validate.validate_pb2 import (
    IGNORE_IF_ZERO_VALUE,
    BytesRules,
    EnumRules,
    FieldRules,
    Int32Rules,
    Int64Rules,
    MapRules,
    RepeatedRules,
    StringRules,
)
from tests.rpc.made import STATUS, STRUCT, TIMESTAMP, field, made, message_with

DURATION = ".google.protobuf.Duration"


def schema_of(message: type[Message], *, sent: bool = False) -> dict[str, Any]:
    """As part of a request, or of a response if it is `sent`."""
    described = cast(Descriptor, message.DESCRIPTOR)
    requests, responses = ([], [described]) if sent else ([described], [])
    return Schemas(Comments(FileDescriptorSet()), requests, responses).message(described)


def value_of(described: Field) -> Any:
    return schema_of(message_with(described))["properties"]["value"]


def text(**rules: Any) -> Field:
    return field(Field.TYPE_STRING, rules=FieldRules(string=StringRules(**rules)))


@pytest.mark.parametrize(
    ("described", "keywords"),
    [
        (field(Field.TYPE_BOOL), {"type": "boolean"}),
        (field(Field.TYPE_DOUBLE), {"type": "number", "format": "double"}),
        (field(Field.TYPE_BYTES), {"type": "string", "contentEncoding": "base64"}),
        (field(Field.TYPE_MESSAGE, TIMESTAMP), {"type": "string", "format": "date-time"}),
        (field(Field.TYPE_MESSAGE, STRUCT), {"type": "object"}),
        (text(min_len=1, max_len=9), {"type": "string", "minLength": 1, "maxLength": 9}),
        (text(len=3), {"type": "string", "minLength": 3, "maxLength": 3}),
        (text(pattern="^[a-z]+$"), {"type": "string", "pattern": "^[a-z]+$", "examples": ["example"]}),
        (text(const="a"), {"type": "string", "const": "a"}),
        (text(**{"in": ["a", "b"]}), {"type": "string", "enum": ["a", "b"]}),
        (text(uuid=True), {"type": "string", "format": "uuid"}),
        (text(email=True, max_len=254), {"type": "string", "format": "email", "maxLength": 254}),
        (text(uri_ref=True), {"type": "string", "format": "uri-reference"}),
        (
            field(Field.TYPE_INT32, rules=FieldRules(int32=Int32Rules(gte=0, lt=10))),
            {"type": "integer", "format": "int32", "minimum": 0, "exclusiveMaximum": 10},
        ),
        (
            field(Field.TYPE_INT64, rules=FieldRules(int64=Int64Rules(gt=0))),
            {"type": "string", "format": "int64", "pattern": "^-?[0-9]+$", "x-exclusiveMinimum": "0"},
        ),
    ],
)
def test_field_has_the_keywords_of_its_type_and_rules(described: Field, keywords: dict[str, Any]) -> None:
    assert value_of(described) == keywords


@pytest.mark.parametrize("pattern", [r"^\P{Cc}*$", r"^[\P{Cc}\t\r\n]*$"])
def test_pattern_without_control_characters_is_portable(pattern: str) -> None:
    """Python's `re` has no classes of characters."""
    portable = re.compile(value_of(text(pattern=pattern))["pattern"])
    control = [chr(code) for code in range(sys.maxunicode + 1) if not portable.fullmatch(chr(code))]
    expected = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) == "Cc"]
    assert control == [each for each in expected if "\\t" not in pattern or each not in "\t\r\n"]


def test_list_has_limits_and_the_rules_of_its_items() -> None:
    rules = RepeatedRules(min_items=1, max_items=5, unique=True, items=FieldRules(string=StringRules(uuid=True)))
    listed = value_of(field(Field.TYPE_STRING, repeated=True, rules=FieldRules(repeated=rules)))
    items = {"type": "string", "format": "uuid"}
    assert listed == {"type": "array", "items": items, "minItems": 1, "maxItems": 5, "uniqueItems": True}


def test_list_without_a_rule_has_the_limit_of_the_pipeline_in_requests_only() -> None:
    message = message_with(field(Field.TYPE_STRING, repeated=True))
    assert schema_of(message)["properties"]["value"]["maxItems"] == 1000
    assert "maxItems" not in schema_of(message, sent=True)["properties"]["value"]


def test_map_has_the_rules_of_its_keys_and_values() -> None:
    rules = MapRules(
        max_pairs=2,
        keys=FieldRules(string=StringRules(max_len=8)),
        values=FieldRules(string=StringRules(min_len=1)),
    )
    mapped = field(Field.TYPE_MESSAGE, ".accord.made.v1.Made.ValueEntry", repeated=True, rules=FieldRules(map=rules))
    assert value_of(mapped) == {
        "type": "object",
        "additionalProperties": {"type": "string", "minLength": 1},
        "propertyNames": {"type": "string", "maxLength": 8},
        "maxProperties": 2,
    }


def test_enum_has_the_names_that_its_rules_accept() -> None:
    rules = FieldRules(enum=EnumRules(not_in=[0]))
    choice = value_of(field(Field.TYPE_ENUM, STATUS, rules=rules))
    assert choice == {"type": "string", "enum": ["STATUS_ACTIVE", "STATUS_PAUSED"]}


def test_enum_without_an_accepted_value_accepts_nothing() -> None:
    rules = FieldRules(enum=EnumRules(not_in=[0, 1, 2]))
    assert value_of(field(Field.TYPE_ENUM, STATUS, rules=rules)) == {"not": {}}


def test_message_that_contains_itself_is_a_reference() -> None:
    message = made(Made=[field(Field.TYPE_MESSAGE, ".accord.made.v1.Made")])["Made"]
    assert schema_of(message)["properties"]["value"] == {"$ref": "#/components/schemas/accord.made.v1.Made"}


@pytest.mark.parametrize(
    ("described", "required"),
    [
        (text(min_len=1), True),
        (text(uuid=True), True),
        (field(Field.TYPE_BYTES, rules=FieldRules(bytes=BytesRules(min_len=1))), True),
        (field(Field.TYPE_MESSAGE, TIMESTAMP, rules=FieldRules(required=True)), True),
        (text(max_len=9), False),
        (field(Field.TYPE_MESSAGE, TIMESTAMP), False),
        (field(Field.TYPE_STRING, optional=True, rules=FieldRules(string=StringRules(min_len=1))), False),
        (
            field(Field.TYPE_STRING, rules=FieldRules(ignore=IGNORE_IF_ZERO_VALUE, string=StringRules(uuid=True))),
            False,
        ),
    ],
)
def test_field_is_required_if_its_rules_refuse_an_empty_message(described: Field, required: bool) -> None:
    assert ("value" in schema_of(message_with(described)).get("required", ())) == required


def test_response_has_every_field_without_presence() -> None:
    message = message_with(field(Field.TYPE_STRING), field(Field.TYPE_STRING, name="other", optional=True))
    assert schema_of(message, sent=True)["required"] == ["value"]


def test_unknown_fields_are_refused_in_requests_only() -> None:
    assert schema_of(CreateTaskRequest)["additionalProperties"] is False
    assert "additionalProperties" not in schema_of(CreateTaskRequest, sent=True)


def test_behavior_and_sensitivity_are_marked() -> None:
    task, sign_in = schema_of(Task)["properties"], schema_of(SignInRequest)["properties"]
    assert task["createdAt"]["readOnly"]
    assert task["id"]["readOnly"]
    assert "readOnly" not in task["title"]
    assert sign_in["password"]["format"] == "password"
