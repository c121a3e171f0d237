"""The JSON form of messages, held against google.protobuf.json_format."""

import json
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from accord.tasks.v1.tasks_pb2 import CreateTaskRequest, ListTasksRequest, UpdateTaskRequest
from accord_rpc.contract import contract_services
from accord_rpc.errors import RpcError
from accord_rpc.protocols.json_codec import json_reader, json_writer
from accord_rpc.protocols.json_codec.document import MAX_DEPTH, MAX_VALUES, MAX_VIOLATIONS
from tests.protos import generated
from tests.rpc.protocols.generated_messages import messages

faces: Any = generated(Path(__file__).parents[1] / "protos", "faces/v1/faces.proto").messages
Everything: Final[type[Message]] = faces.Everything


def _types() -> list[type[Message]]:
    """Of every request and response of the contract."""
    methods = [method for service in contract_services() for method in service.methods]
    found: list[Descriptor] = [kind for method in methods for kind in (method.input_type, method.output_type)]
    return [GetMessageClass(kind) for kind in dict.fromkeys(found)]


TYPES: Final = _types()
MESSAGES: Final = st.sampled_from(TYPES).flatmap(messages)
quickly = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


def _json(message: Message) -> bytes:
    return json_writer(type(message))(message.SerializeToString())


def _same(left: Message, right: Message) -> bool:
    """NaN differs from itself."""
    return left.SerializeToString(deterministic=True) == right.SerializeToString(deterministic=True)


def violations(kind: type[Message], body: str | bytes) -> dict[str, str]:
    with pytest.raises(RpcError) as caught:
        json_reader(kind)(body.encode() if isinstance(body, str) else body)
    return {violation.field: violation.description for violation in caught.value.violations}


def test_the_contract_has_messages() -> None:
    assert len(TYPES) > 100


@quickly
@given(MESSAGES | messages(Everything))
def test_the_json_of_a_message_is_that_of_protobufs_own_library(message: Message) -> None:
    ours, theirs = _json(message), json_format.MessageToJson(message, always_print_fields_with_no_presence=True)
    assert orjson.loads(ours) == json.loads(theirs)
    assert _same(json_format.Parse(ours, type(message)()), message)


@quickly
@given(MESSAGES | messages(Everything), st.booleans(), st.sampled_from([None, 2]))
def test_the_json_of_protobufs_own_library_is_read_in_both_spellings(
    message: Message, proto_names: bool, indent: int | None
) -> None:
    theirs = json_format.MessageToJson(message, preserving_proto_field_name=proto_names, indent=indent)
    assert _same(json_reader(type(message))(theirs.encode()), message)
    assert _same(json_reader(type(message))(_json(message)), message)


@quickly
@given(MESSAGES | messages(Everything), st.data())
def test_what_protobufs_own_library_refuses_is_refused(message: Message, data: st.DataObject) -> None:
    """One value anywhere in the JSON is replaced."""
    value = orjson.loads(_json(message))
    places = list(_places(value))
    if not places:
        return
    container, key = data.draw(st.sampled_from(places))
    container[key] = data.draw(st.sampled_from(["x", "", "7", 7, -1, 1.5, 2**63, True, None, [], {}, [None], {"a": 1}]))
    try:
        theirs = json_format.ParseDict(value, type(message)())
    except (json_format.ParseError, ValueError, TypeError, AttributeError):
        with pytest.raises(RpcError):
            json_reader(type(message))(orjson.dumps(value))
    else:
        try:
            ours = json_reader(type(message))(orjson.dumps(value))
        except RpcError:  # stricter
            return
        assert _same(ours, theirs)


def _places(value: object) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield value, key
        yield from _places(each)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("[]", {"": "must be an object"}),
        ('{"titel": "a"}', {"titel": "is not a field of this message"}),
        ('{"a b\\n": "a"}', {"key": "is not a field of this message"}),
        ('{"title": 1}', {"title": "must be text"}),
        ('{"title": "a", "title": "b"}', {"title": "must be given once"}),
        ('{"title" : "a", "title"\t: "b"}', {"title": "must be given once"}),
        ('{"requestId": "a", "request_id": "a"}', {"request_id": "must be given once"}),
        ('{"titl\\u0065": "a", "title": "a"}', {"title": "must be given once"}),
    ],
)
def test_a_create_request_with_a_problem_is_refused_with_the_path(body: str, expected: dict[str, str]) -> None:
    assert violations(CreateTaskRequest, body) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"small": 2147483648}', {"small": "must be an integer from -2147483648 to 2147483647"}),
        ('{"small": true}', {"small": "must be an integer from -2147483648 to 2147483647"}),
        ('{"small": "1e3"}', {"small": "must be an integer from -2147483648 to 2147483647"}),
        ('{"small": "1_0"}', {"small": "must be an integer from -2147483648 to 2147483647"}),
        ('{"large": -9223372036854775809}', {"large": f"must be an integer from {-(2**63)} to {2**63 - 1}"}),
        ('{"unsignedSmall": -1}', {"unsigned_small": "must be an integer from 0 to 4294967295"}),
        ('{"flag": "true"}', {"flag": "must be true or false"}),
        ('{"content": "?"}', {"content": "must be base64"}),
        ('{"content": "é"}', {"content": "must be base64"}),
        ('{"color": "COLOR_BLUE"}', {"color": "must be one of the defined values"}),
        ('{"real": 1e39}', {"real": "must be a number of at most 3.4028235e+38"}),
        ('{"doubleReal": "nan"}', {"double_real": "must be a number"}),
        ('{"smalls": 1}', {"smalls": "must be a list"}),
        ('{"smalls": [1, null, "x"]}', dict.fromkeys(("smalls[1]", "smalls[2]"), "must be an integer from -2147483648 to 2147483647")),
        ('{"inners": [{}, {"text": 1}, null]}', {"inners[1].text": "must be text", "inners[2]": "must be an object"}),
        ('{"innersByText": {"secret": {"text": 1}}}', {"inners_by_text[key].text": "must be text"}),
        ('{"smallsByLarge": {"x": 1, "1": "y"}}', {"smalls_by_large[key]": "must be an integer from -2147483648 to 2147483647"}),
        ('{"textsByText": {"a": "b", "a": "c"}}', {"texts_by_text": "must give each key once"}),
        ('{"settings": {"a": [{"b": 1, "b": 2}]}, "text": 1}', {"settings": "must give each key once", "text": "must be text"}),
        ('{"inner": {"inner": {"inner": {"x": 1}}}}', {"inner.inner.inner.x": "is not a field of this message"}),
        ('{"city": "a", "room": 1}', {"city": "must not be given together with another field of its oneof"}),
        ('{"time": "2026-02-30T00:00:00Z"}', {"time": "must be an RFC 3339 time in the years 1 to 9999, for example 2026-01-31T12:00:00Z"}),
        ('{"duration": "1"}', {"duration": "must be a duration in seconds, for example 1.5s"}),
        ('{"updateMask": ["text"]}', {"update_mask": "must be names of fields, separated by commas"}),
        ('{"packed": {"@type": "example.com/no.such.Type"}}', {"packed.@type": "must be the URL of a message type of the contract"}),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_kind_is_refused_with_the_path(body: str, expected: dict[str, str]) -> None:
    assert violations(Everything, body) == expected


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"NaN", b'{"title": NaN}', b'{"title": "\\ud800"}', b'{"title": "\xff"}', b"\xef\xbb\xbf{}", b"{} {}"],
)
def test_a_body_that_is_not_json_is_refused(body: bytes) -> None:
    assert list(violations(CreateTaskRequest, body)) == [""]


def test_all_problems_are_reported_at_once() -> None:
    body = '{"pageSize": "x", "createdFrom": 7, "completed": 1, "orderBy": null, "nothing": {"a": "a:b"}}'
    assert set(violations(ListTasksRequest, body)) == {"page_size", "created_from", "completed", "nothing"}


def test_a_request_with_very_many_problems_is_not_read_to_its_end() -> None:
    body = orjson.dumps({"smalls": ["x"] * 900})
    with pytest.raises(RpcError) as caught:
        json_reader(Everything)(body)
    assert len(caught.value.violations) == MAX_VIOLATIONS


def test_a_list_that_is_too_long_is_refused_before_its_elements_are_read() -> None:
    assert violations(Everything, orjson.dumps({"inners": [{}] * 1001})) == {
        "inners": "must contain no more than 1000 item(s)"
    }


def test_nesting_is_limited_to_what_the_parser_of_binary_messages_takes() -> None:
    def nested(levels: int) -> bytes:
        return b'{"settings":' * 1 + b'{"a":' * (levels - 1) + b"1" + b"}" * levels

    deepest = json_reader(Everything)(nested(MAX_DEPTH))
    assert _same(Everything.FromString(deepest.SerializeToString()), deepest)
    assert list(violations(Everything, nested(MAX_DEPTH + 1))) == [""]
    assert list(violations(Everything, b'{"settings":' + b"[" * 1000 + b"]" * 1000 + b"}")) == [""]


def test_a_request_with_too_many_values_is_refused() -> None:
    assert json_reader(Everything)(orjson.dumps({"anything": [0] * (MAX_VALUES - 1)})).HasField("anything")
    assert list(violations(Everything, orjson.dumps({"anything": [0] * MAX_VALUES}))) == [""]
    assert list(violations(Everything, orjson.dumps({"updateMask": "A" * 100_000}))) == ["update_mask"]


def test_null_is_an_unset_field() -> None:
    assert json_reader(UpdateTaskRequest)(b'{"task": null, "updateMask": null}') == UpdateTaskRequest()


def test_texts_that_look_like_keys_are_no_repeated_keys() -> None:
    message = json_reader(CreateTaskRequest)(rb'{"title": "\"title\": \"a\" : b", "description": "\"title\":"}')
    assert message.title == '"title": "a" : b'


def test_field_masks_take_both_spellings() -> None:
    assert list(json_reader(UpdateTaskRequest)(b'{"updateMask": "dueAt,due_at"}').update_mask.paths) == [
        "due_at",
        "due_at",
    ]
