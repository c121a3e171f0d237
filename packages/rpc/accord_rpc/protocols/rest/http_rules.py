"""The HTTP rules of the contract (`google.api.http`): which requests are calls of a method, and where its fields come from.

Checked at start and by `tools/contract.py lint`: a rule that is wrong or ambiguous is never served."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Final

from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule as Declared
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from accord.policy.v1 import policy_pb2
from accord_rpc.fields import is_map
from accord_rpc.policy import is_sensitive
from accord_rpc.protocols.rest.path_templates import Template, TemplateError

WHOLE: Final = "*"
"""The body is the whole request."""
_VERBS: Final = ("get", "put", "post", "delete", "patch")
_WITHOUT_BODY: Final = frozenset({"GET", "DELETE"})
_ERROR: Final = "error"
_WELL_KNOWN: Final = "google.protobuf."
IN_TEXT: Final = frozenset(
    f"{_WELL_KNOWN}{name}"
    for name in (
        *("Timestamp", "Duration", "FieldMask", "StringValue", "BytesValue", "BoolValue"),
        *("Int32Value", "Int64Value", "UInt32Value", "UInt64Value", "FloatValue", "DoubleValue"),
    )
)
"""The messages whose JSON form is a text, a number or a boolean, so that a query can hold them."""


@dataclass(frozen=True, slots=True, eq=False)
class HttpRule:
    """One binding of a method. `body` is a field of the request, `*` for the whole request, or empty if it has no body."""

    method: MethodDescriptor
    verb: str
    template: Template
    body: str
    response_body: str

    def __str__(self) -> str:
        return f"{self.verb} {self.template.text}"

    @property
    def name(self) -> str:
        """`/accord.tasks.v1.TaskService/GetTask`."""
        return f"/{self.method.containing_service.full_name}/{self.method.name}"


@dataclass(frozen=True, slots=True)
class QueryField:
    """A field that a query can set. `fields` lead from the request to it."""

    fields: tuple[FieldDescriptor, ...]

    @property
    def path(self) -> str:
        return ".".join(field.name for field in self.fields)

    @property
    def json_path(self) -> str:
        return ".".join(field.json_name for field in self.fields)


@cache
def http_rules(method: MethodDescriptor) -> tuple[HttpRule, ...]:
    """The bindings of a method, the main one first. Raises TemplateError."""
    declared = _declared(method)
    rules = (declared, *declared.additional_bindings)
    return tuple(_rule(method, rule) for rule in rules if rule.WhichOneof("pattern"))


def query_fields(rule: HttpRule) -> Iterator[QueryField]:
    """The fields that neither the path nor the body sets."""
    if rule.body == WHOLE:
        return
    bound = {variable.field for variable in rule.template.variables}
    for field in rule.method.input_type.fields:
        if field.name != rule.body:
            yield from (leaf for leaf in _leaves((field,)) if leaf.path not in bound)


def field_at(message: Descriptor, path: str) -> tuple[FieldDescriptor, ...] | None:
    """The fields that lead from a message to the one at `path`; None if a field is missing or repeated."""
    found: list[FieldDescriptor] = []
    inside: Descriptor | None = message
    for name in path.split("."):
        field = inside.fields_by_name.get(name) if inside is not None else None
        if field is None or field.is_repeated:
            return None
        found.append(field)
        inside = field.message_type
    return tuple(found)


def http_rule_problems(methods: Iterable[MethodDescriptor]) -> list[str]:
    """A sentence for each method without a route, and for each rule that is wrong, ambiguous or inconsistent with another."""
    problems: list[str] = []
    rules: list[HttpRule] = []
    for method in methods:
        try:
            found = http_rules(method)
        except TemplateError as error:
            problems.append(f"{method.full_name}: the path {error}")
            continue
        problems += [f"{method.full_name}: {problem}" for problem in _method_problems(method, found)]
        rules += found
    return problems + list(_ambiguities(rules)) + list(_inconsistent_names(rules))


def _declared(method: MethodDescriptor) -> Declared:
    return method.GetOptions().Extensions[annotations_pb2.http]


def _rule(method: MethodDescriptor, declared: Declared) -> HttpRule:
    verb = declared.WhichOneof("pattern") or ""
    if verb not in _VERBS:
        raise TemplateError("has a kind other than " + ", ".join(_VERBS))
    template = Template.parse(getattr(declared, verb))
    return HttpRule(method, verb.upper(), template, declared.body, declared.response_body)


def _method_problems(method: MethodDescriptor, rules: Sequence[HttpRule]) -> Iterator[str]:
    exempt = method.GetOptions().Extensions[policy_pb2.http_exempt]
    if not rules and not exempt:
        yield "declares neither a route (google.api.http) nor why it has none (http_exempt)"
    if rules and exempt:
        yield "declares a route, yet also why it has none (http_exempt)"
    if rules and method.client_streaming:
        yield "streams its requests, which REST cannot carry, and so must declare http_exempt"
    if rules and method.server_streaming and _ERROR in method.output_type.fields_by_name:
        yield f"streams messages with a field {_ERROR}, which could be mistaken for the status that ends a stream"
    for rule in rules:
        yield from (f"its route {rule} {problem}" for problem in _rule_problems(rule))


def _rule_problems(rule: HttpRule) -> Iterator[str]:
    yield from _body_problems(rule)
    if rule.verb == "GET" and rule.method.GetOptions().idempotency_level != MethodOptions.NO_SIDE_EFFECTS:
        yield "is a GET, which clients and proxies repeat, yet the method is not NO_SIDE_EFFECTS"
    for variable in rule.template.variables:
        fields = field_at(rule.method.input_type, variable.field)
        if fields is None or fields[-1].message_type is not None:
            yield f"has a variable {variable.field}, which is not a single value of the request"
        elif any(map(is_sensitive, fields)):
            yield f"has the sensitive field {variable.field} in its path, which proxies and browsers record"
    for leaf in query_fields(rule):
        if not _fits_in_query(leaf.fields[-1]):
            yield f"has the field {leaf.path} neither in its path nor in its body, and a query cannot hold it"
        elif any(map(is_sensitive, leaf.fields)):
            yield f"has the sensitive field {leaf.path} in its query, which proxies and browsers record"


def _body_problems(rule: HttpRule) -> Iterator[str]:
    if rule.body and rule.verb in _WITHOUT_BODY:
        yield "has a body, which this HTTP method does not have"
    if rule.body and rule.body != WHOLE:
        field = rule.method.input_type.fields_by_name.get(rule.body)
        if field is None or field.message_type is None or field.is_repeated:
            yield f"has the body {rule.body}, which is not a single message of the request"
    if rule.response_body and rule.response_body not in rule.method.output_type.fields_by_name:
        yield f"has the response_body {rule.response_body}, which is not a field of the response"


def _ambiguities(rules: Iterable[HttpRule]) -> Iterator[str]:
    by_verb = defaultdict(list)
    for rule in rules:
        by_verb[rule.verb].append(rule)
    for one, other in (pair for alike in by_verb.values() for pair in combinations(alike, 2)):
        if one.template.overlaps(other.template):
            yield f"{other.method.full_name}: its route {other} matches the same paths as {one} of {one.method.full_name}"


def _inconsistent_names(rules: Iterable[HttpRule]) -> Iterator[str]:
    """OpenAPI has one entry for the paths of one shape, and so one name for each of their parameters."""
    first: dict[object, HttpRule] = {}
    for rule in rules:
        known = first.setdefault(rule.template.shape, rule)
        if known.template.documented != rule.template.documented:
            yield f"{rule.method.full_name}: its route {rule} has other names than {known} of {known.method.full_name}"


def _leaves(fields: tuple[FieldDescriptor, ...]) -> Iterator[QueryField]:
    """The field, or the fields of the message in it. Stops at a message that contains itself."""
    message = fields[-1].message_type
    if message is None or fields[-1].is_repeated or message.full_name.startswith(_WELL_KNOWN):
        yield QueryField(fields)
        return
    outer = {field.message_type.full_name for field in fields[:-1] if field.message_type}
    if message.full_name not in outer:
        for field in message.fields:
            yield from _leaves((*fields, field))


def _fits_in_query(field: FieldDescriptor) -> bool:
    return not is_map(field) and (field.message_type is None or field.message_type.full_name in IN_TEXT)
