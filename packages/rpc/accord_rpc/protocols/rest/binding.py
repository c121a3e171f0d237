"""Makes the request message of a REST call from its path, query and body.

Every problem is reported at once, by the path of its field. Texts of the request are never repeated."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, cast
from urllib.parse import unquote_to_bytes

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from accord_rpc.errors import FieldViolation, RpcError
from accord_rpc.masks import MASK, is_changeable
from accord_rpc.protocols.json_codec import Violations, message_reader, parse, scalar_reader
from accord_rpc.protocols.rest.http_rules import WHOLE, HttpRule, field_at, query_fields

_PARAMETER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,127}")
_WHOLE_NUMBER: Final = re.compile(r"-?[0-9]{1,10}")
_BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_BOOLEANS: Final = {"true": True, "false": False}
_BOOL_VALUE: Final = "google.protobuf.BoolValue"


class HeaderValue(NamedTuple):
    """A header that sets a field: `If-Match`, whose value is an etag."""

    header: str
    field: str
    value: str


class Binding:
    """The binding of one rule, compiled once."""

    def __init__(self, rule: HttpRule) -> None:
        request = rule.method.input_type
        self._message: type[Message] = GetMessageClass(request)
        self._body = rule.body
        self._read_body = message_reader(_body_type(rule)) if rule.body else None
        self._path = [_Parameter.of(request, variable.field) for variable in rule.template.variables]
        self._query = dict(_parameters(rule))
        self._elsewhere = dict(_elsewhere(rule))
        self._masked = _masked(rule)

    def read(
        self,
        values: Sequence[str],
        query: str,
        body: bytes,
        headers: Iterable[HeaderValue] = (),
        *others: FieldViolation,
    ) -> bytes:
        """The message, serialized. `values` are those of the template's variables. Raises INVALID_MESSAGE with all violations,
        including `others`."""
        message, violations = self._message(), Violations()
        for violation in others:
            violations.add(*violation)
        document = self._fill_from_body(message, body, violations)
        if query:
            self._fill_from_query(message, query, violations)
        for parameter, text in zip(self._path, values, strict=True):
            parameter.agree(message, text, "the path", violations)
        for header in headers:
            _Parameter.of(cast(Descriptor, message.DESCRIPTOR), header.field).agree(
                message, header.value, f"the header {header.header}", violations
            )
        if self._masked is not None:
            self._masked.complete(message, document)
        violations.check()
        return message.SerializeToString()

    def _fill_from_body(self, message: Any, body: bytes, violations: Violations) -> object:
        """The JSON document of the body. A body that is missing is an empty object."""
        if self._read_body is None:
            if body:
                violations.add("", "this method takes no body")
            return None
        try:
            document = parse(body, violations) if body else {}
        except RpcError as error:
            for violation in error.violations:
                violations.add(*violation)
            return None
        if self._body == WHOLE:
            self._read_body(document, message, "", violations)
        else:
            resource = getattr(message, self._body)
            resource.SetInParent()
            self._read_body(document, resource, f"{self._body}.", violations)
        return document

    def _fill_from_query(self, message: Message, query: str, violations: Violations) -> None:
        given: set[str] = set()
        oneofs: dict[str, str] = {}
        for pair in query.split("&"):
            key, _, text = pair.partition("=")
            name, value = _decoded(key), _decoded(text)
            parameter = self._query.get(name) if name is not None else None
            if parameter is None:
                violations.add(*self._unknown(name))
            elif parameter.path in given and not parameter.is_repeated:
                violations.add(parameter.path, "must be given once")
            elif parameter.oneof and oneofs.setdefault(parameter.oneof, parameter.path) != parameter.path:
                violations.add(parameter.path, "must not be given together with another field of its oneof")
            elif value is None:
                violations.add(parameter.path, "must be percent-encoded UTF-8")
            else:
                parameter.set(message, value, violations)
            if parameter is not None:
                given.add(parameter.path)

    def _unknown(self, name: str | None) -> FieldViolation:
        if name is None or not _PARAMETER.fullmatch(name):
            return FieldViolation("query", "has a parameter that is not one of this method")
        if (place := self._elsewhere.get(name)) is not None:
            return FieldViolation(name, f"belongs in the {place}, not in the query")
        if self._body == WHOLE:
            return FieldViolation(name, "is not a parameter: this method takes its fields from the body")
        return FieldViolation(name, "is not a parameter of this method")


class _Parameter:
    """A field that texts set: in the path, the query or a header."""

    def __init__(self, fields: Sequence[FieldDescriptor]) -> None:
        *way, self._field = fields
        self._way = [field.name for field in way]
        self.path = ".".join(field.name for field in fields)
        self.is_repeated = bool(self._field.is_repeated)
        oneof = self._field.containing_oneof
        self.oneof = oneof.full_name if oneof is not None and len(oneof.fields) > 1 else ""
        inner = self._field.message_type
        self._convert = None if inner is not None else text_reader(self._field)
        self._read = None if inner is None else message_reader(inner)
        self._is_bool = inner is not None and inner.full_name == _BOOL_VALUE

    @classmethod
    def of(cls, message: Descriptor, path: str) -> "_Parameter":
        fields = field_at(message, path)
        assert fields is not None, path  # checked at start
        return cls(fields)

    def set(self, message: Any, text: str, violations: Violations) -> None:
        target = self._holder(message)
        if self._convert is None:
            self._set_message(target, text, violations)
            return
        try:
            value = self._convert(text)
        except ValueError as error:
            violations.add(self.path, str(error))
            return
        if self.is_repeated:
            getattr(target, self._field.name).append(value)
        else:
            setattr(target, self._field.name, value)

    def agree(self, message: Any, text: str, source: str, violations: Violations) -> None:
        """Sets a field that the body may have set too, to the same value."""
        assert self._convert is not None
        try:
            value = self._convert(text)
        except ValueError as error:
            violations.add(self.path, str(error))
            return
        holder, name = self._holder(message), self._field.name
        present = getattr(holder, name)
        is_set = holder.HasField(name) if self._field.has_presence else bool(present)
        if is_set and present != value:
            violations.add(self.path, f"must be the value in {source}, or be left out")
        else:
            setattr(holder, name, value)

    def _holder(self, message: Any) -> Any:
        for name in self._way:
            message = getattr(message, name)
        return message

    def _set_message(self, holder: Any, text: str, violations: Violations) -> None:
        assert self._read is not None
        inner = getattr(holder, self._field.name)
        if self.is_repeated:
            inner = inner.add()
        else:
            inner.SetInParent()
        self._read(_BOOLEANS.get(text, text) if self._is_bool else text, inner, f"{self.path}.", violations)


class _Mask:
    """The `update_mask` of a PATCH that has none: the fields in its body that callers can change (AIP-134)."""

    def __init__(self, resource: Descriptor, in_path: Collection[str]) -> None:
        fields = [field for field in resource.fields if is_changeable(field) and field.name not in in_path]
        self._names = {spelling: field.name for field in fields for spelling in (field.name, field.json_name)}

    def complete(self, message: Any, document: object) -> None:
        mask = message.update_mask
        if not mask.paths and isinstance(document, dict):
            mask.paths.extend(self._names[key] for key in document if key in self._names)


def text_reader(field: FieldDescriptor) -> Callable[[str], object]:
    """A function from a text to the field's value. Raises ValueError, which says what it must be."""
    read = scalar_reader(field)
    if field.enum_type is not None:
        return lambda text: read(int(text) if _WHOLE_NUMBER.fullmatch(text) else text)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return lambda text: read(_BOOLEANS.get(text, text))
    return read


def _parameters(rule: HttpRule) -> Iterator[tuple[str, _Parameter]]:
    """Under the names of the contract and those of JSON."""
    for leaf in query_fields(rule):
        parameter = _Parameter(leaf.fields)
        yield from ((leaf.path, parameter), (leaf.json_path, parameter))


def _elsewhere(rule: HttpRule) -> Iterator[tuple[str, str]]:
    """Fields that callers might look for in the query, and where they belong."""
    if rule.body and rule.body != WHOLE:
        yield rule.body, "body"
    for variable in rule.template.variables:
        yield variable.field, "path"


def _body_type(rule: HttpRule) -> Descriptor:
    if rule.body == WHOLE:
        return rule.method.input_type
    resource = rule.method.input_type.fields_by_name[rule.body].message_type
    assert resource is not None  # checked at start
    return resource


def _masked(rule: HttpRule) -> _Mask | None:
    if rule.verb != "PATCH" or rule.body in ("", WHOLE) or MASK not in rule.method.input_type.fields_by_name:
        return None
    in_path = {variable.field.rpartition(".")[2] for variable in rule.template.variables}
    return _Mask(_body_type(rule), in_path)


def _decoded(text: str) -> str | None:
    """None if the text is not percent-encoded UTF-8."""
    if _BROKEN_ESCAPE.search(text):
        return None
    try:
        return unquote_to_bytes(text.replace("+", " ")).decode()
    except UnicodeDecodeError:
        return None
