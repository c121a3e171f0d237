"""Messages as JSON Schema, with the rules of `buf.validate` as keywords."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from protovalidate import Validator

from accord_rpc.fields import is_date, is_map
from accord_rpc.openapi.comments import Comments
from accord_rpc.openapi.examples import Examples
from accord_rpc.pipeline.repeated_limits import MOST_ITEMS
from accord_rpc.policy import is_sensitive
from buf.validate import validate_pb2

Json: TypeAlias = dict[str, Any]

_DURATION: Final[Json] = {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$", "examples": ["3600s"]}
_INT64: Final[Json] = {"type": "string", "format": "int64", "pattern": "^-?[0-9]+$"}
_UINT64: Final[Json] = {"type": "string", "format": "uint64", "pattern": "^[0-9]+$"}
_BYTES: Final[Json] = {"type": "string", "contentEncoding": "base64"}

WELL_KNOWN: Final[Mapping[str, Json]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": _DURATION,
    "google.protobuf.FieldMask": {"type": "string", "format": "field-mask"},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.ListValue": {"type": "array", "items": {}},
    "google.protobuf.Value": {},
    "google.protobuf.Empty": {"type": "object"},
    "google.protobuf.Any": {"type": "object", "properties": {"@type": {"type": "string"}}, "required": ["@type"]},
    "google.protobuf.BoolValue": {"type": "boolean"},
    "google.protobuf.StringValue": {"type": "string"},
    "google.protobuf.BytesValue": _BYTES,
    "google.protobuf.Int32Value": {"type": "integer", "format": "int32"},
    "google.protobuf.UInt32Value": {"type": "integer", "format": "uint32"},
    "google.protobuf.Int64Value": _INT64,
    "google.protobuf.UInt64Value": _UINT64,
    "google.protobuf.FloatValue": {"type": "number", "format": "float"},
    "google.protobuf.DoubleValue": {"type": "number", "format": "double"},
}
"""Messages with a JSON form of their own (ProtoJSON)."""

_FORMATS: Final = {
    "email": "email",
    "hostname": "hostname",
    "ipv4": "ipv4",
    "ipv6": "ipv6",
    "uri": "uri",
    "uri_ref": "uri-reference",
    "uuid": "uuid",
}
_NUMBERS: Final[Mapping[int, tuple[str, Json]]] = {
    FieldDescriptor.CPPTYPE_INT32: ("int32", {"type": "integer", "format": "int32"}),
    FieldDescriptor.CPPTYPE_UINT32: ("uint32", {"type": "integer", "format": "uint32"}),
    FieldDescriptor.CPPTYPE_FLOAT: ("float", {"type": "number", "format": "float"}),
    FieldDescriptor.CPPTYPE_DOUBLE: ("double", {"type": "number", "format": "double"}),
    FieldDescriptor.CPPTYPE_INT64: ("int64", _INT64),
    FieldDescriptor.CPPTYPE_UINT64: ("uint64", _UINT64),
}
# Python, and ECMAScript without the flag `u`, do not know the class Cc: the control characters.
_PORTABLE: Final = (
    (r"[\P{Cc}\t\r\n]", r"[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]"),
    (r"\P{Cc}", r"[^\u0000-\u001f\u007f-\u009f]"),
)
_BOUNDS: Final = {"gte": "minimum", "gt": "exclusiveMinimum", "lte": "maximum", "lt": "exclusiveMaximum"}


class Schemas:
    """Collects the components that the document refers to.

    A message that only requests contain has no other properties, because unknown fields are refused. A message that only
    responses contain requires every field without presence, because those are always sent.
    """

    def __init__(self, comments: Comments, requests: Iterable[Descriptor], responses: Iterable[Descriptor]) -> None:
        self._comments = comments
        self._validator = Validator()
        self._examples = Examples(self._validator)
        self._requests = {message.full_name for message in _reachable(requests)}
        self._responses = {message.full_name for message in _reachable(responses)}
        self.components: Json = {}

    def ref(self, described: Descriptor | EnumDescriptor) -> Json:
        name = described.full_name
        if name in WELL_KNOWN:
            return dict(WELL_KNOWN[name])
        if name not in self.components:
            self.components[name] = {}  # a message can contain itself
            self.components[name] = (
                self._enum(described) if isinstance(described, EnumDescriptor) else self.message(described)
            )
        return {"$ref": f"#/components/schemas/{name}"}

    def message(self, message: Descriptor, without: Collection[str] = ()) -> Json:
        """Without the fields that the path has already."""
        fields = [field for field in message.fields if field.name not in without]
        schema: Json = {
            "type": "object",
            "description": self._comments.of(message.full_name),
            "properties": {field.json_name: self.field(field) for field in fields},
        }
        required = self.required(message)
        if names := [field.json_name for field in fields if field.name in required]:
            schema["required"] = names
        if message.full_name not in self._responses:
            schema["additionalProperties"] = False
        if choices := list(_required_oneofs(message)):
            schema["allOf"] = choices
        return schema | _cel(message.GetOptions().Extensions[validate_pb2.message].cel)

    def required(self, message: Descriptor) -> set[str]:
        """The names of the fields that an empty message violates, or that responses always have."""
        if message.full_name not in self._requests:
            return {field.name for field in message.fields if not field.has_presence}
        violations = self._validator.collect_violations(GetMessageClass(message)())
        paths = [violation.proto.field.elements for violation in violations if violation.proto.field]
        declared = {field.name for field in message.fields if field_behavior_pb2.REQUIRED in _behaviors(field)}
        return declared | {path[0].field_name for path in paths if len(path) == 1}

    def example(self, message: Descriptor, without: Collection[str] = ()) -> Json:
        """Of a request, or of a resource in it."""
        return self._examples.body(message, self.required(message), without)

    def field(self, field: FieldDescriptor) -> Json:
        rules = field.GetOptions().Extensions[validate_pb2.field]
        schema = self._value(field, rules)
        if comment := self._comments.of(field.full_name):
            schema["description"] = comment
        if is_sensitive(field):
            schema["format"] = "password"
        if "pattern" in schema and field.type == FieldDescriptor.TYPE_STRING:
            schema["examples"] = [self._examples.text(field)]
        return schema | _access(field) | _cel(rules.cel)

    def _value(self, field: FieldDescriptor, rules: validate_pb2.FieldRules) -> Json:
        if is_map(field):
            return self._map(field, rules.map)
        if field.is_repeated:
            return self._list(field, rules.repeated)
        return self._single(field, rules)

    def _map(self, field: FieldDescriptor, rules: validate_pb2.MapRules) -> Json:
        assert field.message_type is not None
        key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        schema = {"type": "object", "additionalProperties": self._single(value, rules.values)}
        if len(names := self._single(key, rules.keys)) > 1:
            schema["propertyNames"] = names
        return schema | _limits(rules, min_pairs="minProperties", max_pairs="maxProperties")

    def _list(self, field: FieldDescriptor, rules: validate_pb2.RepeatedRules) -> Json:
        assert field.containing_type is not None
        limited = field.containing_type.full_name in self._requests
        schema: Json = {"type": "array", "items": self._single(field, rules.items)}
        schema |= {"maxItems": MOST_ITEMS} if limited else {}
        schema |= {"uniqueItems": True} if rules.unique else {}
        return schema | _limits(rules, min_items="minItems", max_items="maxItems")

    def _single(self, field: FieldDescriptor, rules: validate_pb2.FieldRules) -> Json:
        if field.message_type is not None:
            return self.ref(field.message_type)
        if field.enum_type is not None:
            return self._choice(field.enum_type, rules.enum)
        if field.type == FieldDescriptor.TYPE_BYTES:
            return dict(_BYTES)
        if field.type == FieldDescriptor.TYPE_BOOL:
            return {"type": "boolean"}
        if is_date(field):
            return {"type": "string", "format": "date"}
        return _text(rules.string) if field.type == FieldDescriptor.TYPE_STRING else _number(field, rules)

    def _choice(self, enum: EnumDescriptor, rules: validate_pb2.EnumRules) -> Json:
        accepted, refused = getattr(rules, "in"), rules.not_in
        if not (accepted or refused):
            return self.ref(enum)
        values = [value for value in enum.values if value.number not in refused]
        names = [value.name for value in values if not accepted or value.number in accepted]
        return {"type": "string", "enum": names} if names else {"not": {}}  # an application without permissions

    def _enum(self, enum: EnumDescriptor) -> Json:
        texts = {value.name: self._comments.of(f"{enum.full_name}.{value.name}") for value in enum.values}
        values = "\n".join(f"- `{name}`: {text}" for name, text in texts.items())
        description = f"{self._comments.of(enum.full_name)}\n\n{values}"
        return {"type": "string", "description": description, "enum": list(texts)}


def _reachable(roots: Iterable[Descriptor]) -> Iterable[Descriptor]:
    found: dict[str, Descriptor] = {}
    waiting = list(roots)
    while waiting:
        message = waiting.pop()
        if message.full_name not in found:
            found[message.full_name] = message
            waiting += [field.message_type for field in message.fields if field.message_type is not None]
    return found.values()


def _required_oneofs(message: Descriptor) -> Iterator[Json]:
    for oneof in message.oneofs:
        if oneof.GetOptions().Extensions[validate_pb2.oneof].required:
            yield {"oneOf": [{"required": [field.json_name]} for field in oneof.fields]}


def _behaviors(field: FieldDescriptor) -> Sequence[int]:
    behaviors: Sequence[int] = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    return behaviors


def _access(field: FieldDescriptor) -> Json:
    behaviors = _behaviors(field)
    is_output = field_behavior_pb2.OUTPUT_ONLY in behaviors or field_behavior_pb2.IDENTIFIER in behaviors
    marks = {
        "readOnly": is_output,
        "writeOnly": field_behavior_pb2.INPUT_ONLY in behaviors,
        "deprecated": field.GetOptions().deprecated,
    }
    return {mark: True for mark, applies in marks.items() if applies}


def _cel(rules: Sequence[validate_pb2.Rule]) -> Json:
    listed = [{"id": rule.id, "message": rule.message, "expression": rule.expression} for rule in rules]
    return {"x-cel": listed} if listed else {}


def _text(rules: validate_pb2.StringRules) -> Json:
    schema: Json = {"type": "string"}
    if known := _FORMATS.get(rules.WhichOneof("well_known") or ""):
        schema["format"] = known
    if rules.HasField("len"):
        schema |= {"minLength": rules.len, "maxLength": rules.len}
    if accepted := list(getattr(rules, "in")):
        schema["enum"] = accepted
    if rules.pattern:
        schema["pattern"] = _portable(rules.pattern)
    return schema | _limits(rules, min_len="minLength", max_len="maxLength", const="const")


def _portable(pattern: str) -> str:
    for ours, portable in _PORTABLE:
        pattern = pattern.replace(ours, portable)
    return pattern


def _number(field: FieldDescriptor, rules: validate_pb2.FieldRules) -> Json:
    """Numbers of 64 bits are text, to which JSON Schema's limits do not apply."""
    name, kind = _NUMBERS[field.cpp_type]
    of_type = getattr(rules, name)
    if kind["type"] == "string":
        limits = _limits(of_type, **{rule: f"x-{keyword}" for rule, keyword in _BOUNDS.items()})
        return kind | {keyword: str(limit) for keyword, limit in limits.items()}
    accepted = list(getattr(of_type, "in"))
    return kind | _limits(of_type, **_BOUNDS, const="const") | ({"enum": accepted} if accepted else {})


def _limits(rules: Any, **keywords: str) -> Json:
    """The rules that are set, under the names of their keywords."""
    return {keyword: getattr(rules, rule) for rule, keyword in keywords.items() if rules.HasField(rule)}
