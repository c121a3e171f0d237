"""Fields in the contract: their types, rules and comments."""

from decimal import Decimal

from accord_generator.feature import Feature
from accord_generator.fields import NUMBERS, Field, Kind, Limits
from accord_generator.names import pascal, words

TEXT = r"^\P{Cc}*$"
LINES = r"^[\P{Cc}\t\r\n]*$"
_TYPES = {Kind.FLOAT: "double", Kind.TIMESTAMP: "google.protobuf.Timestamp", Kind.JSON: "google.protobuf.Struct"}
_TEXTS = (Kind.STRING, Kind.DATE, Kind.UUID, Kind.REF)


def enum_name(feature: Feature, field: Field) -> str:
    return f"{feature.names.message}{pascal(field.name)}"


def enum_prefix(feature: Feature, field: Field) -> str:
    return f"{feature.names.constant}_{field.name.upper()}"


def proto_type(feature: Feature, field: Field) -> str:
    """With `repeated` or `optional`."""
    kind = field.kind
    name = (
        enum_name(feature, field) if kind is Kind.ENUM else _TYPES.get(kind, "string" if kind in _TEXTS else str(kind))
    )
    return f"repeated {name}" if field.is_array else f"optional {name}" if field.optional else name


def create_type(feature: Feature, field: Field) -> str:
    """In a Create request, where a value that is 0, false or empty differs from the default."""
    has_presence = field.default is not None and field.kind in (Kind.BOOL, Kind.STRING, *NUMBERS)
    return f"optional {proto_type(feature, field)}" if has_presence else proto_type(feature, field)


def create_comment(feature: Feature, field: Field) -> str:
    default = f" {str(field.default).lower() if field.kind is Kind.BOOL else field.default} if unset."
    return comment(feature, field) + (default if field.default is not None else "")


def resource_options(field: Field) -> list[str]:
    """An Update request may leave the field out."""
    found = _options(field, required=False)
    if field.output:
        found.insert(0, "(google.api.field_behavior) = OUTPUT_ONLY")
    if field.immutable:
        found.insert(0, "(google.api.field_behavior) = IMMUTABLE")
    return found


def create_options(field: Field) -> list[str]:
    has_presence = field.default is not None and field.kind in (Kind.STRING, *NUMBERS)
    return _options(field, required=field.must_be_given, has_presence=has_presence)


def filter_options(field: Field) -> list[str]:
    """Of a filter, which does not apply if it is unset."""
    return _options(field, required=False, has_presence=field.kind in NUMBERS)


def _options(field: Field, *, required: bool, has_presence: bool = False) -> list[str]:
    found = ["(accord.policy.v1.sensitive) = true"] if field.sensitive else []
    if field.kind is Kind.DATE:
        return [*found, "(accord.policy.v1.date) = true"]
    if field.kind is Kind.TIMESTAMP:
        return [*found, "(buf.validate.field).required = true"] if required else found
    rules = _rules(field, required=required)
    if field.items is not None:
        limits = f"{f'min_items: {field.items.least} ' if field.items.least and required else ''}max_items: {field.items.most}"
        items = f" items: {{{rules}}}" if rules else ""
        return [*found, f"(buf.validate.field).repeated = {{{limits}{items}}}"]
    if rules and not required and not (field.optional or has_presence) and _refuses_zero(field):
        found.append("(buf.validate.field).ignore = IGNORE_IF_ZERO_VALUE")
    return [*found, *([f"(buf.validate.field).{rules.replace(':', ' =', 1)}"] if rules else [])]


def _refuses_zero(field: Field) -> bool:
    if field.kind in (Kind.UUID, Kind.REF):
        return True
    return (field.kind is Kind.STRING or field.kind in NUMBERS) and not field.admits_zero


def _rules(field: Field, *, required: bool) -> str:
    """As in a message literal: `string: {max_len: 3}`. Empty for none."""
    match field.kind:
        case Kind.STRING:
            return f"string: {{{_text(field)}}}"
        case Kind.UUID | Kind.REF:
            return "string: {uuid: true}"
        case Kind.ENUM:
            return f"enum: {{defined_only: true{' not_in: 0' if required or field.is_array else ''}}}"
        case Kind.INT32 | Kind.INT64:
            return f"{field.kind}: {{{_numbers(field.limits)}}}" if _numbers(field.limits) else ""
        case Kind.FLOAT:
            return f"double: {{finite: true {_numbers(field.limits)}}}"
    return ""


def _text(field: Field) -> str:
    least, most = field.limits.least or 0, field.limits.most
    length = f"len: {most}" if least == most else f"{f'min_len: {least} ' if least else ''}max_len: {most}"
    pattern = field.pattern or (LINES if field.multiline else TEXT)
    return f'{length} pattern: "{escaped(pattern)}"'


def escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _numbers(limits: Limits) -> str:
    ends = (("gte", limits.least), ("lte", limits.most))
    return " ".join(f"{name}: {number}" for name, number in ends if number is not None)


def comment(feature: Feature, field: Field) -> str:
    """What the field is, its limits in words, and what an unset field means."""
    subject = words(field.name.removesuffix("_id") if field.reference else field.name)
    first = f"The {subject}"
    match field.kind:
        case Kind.BOOL if not field.is_array:
            first = f"Whether the {feature.names.words} is {subject}"
        case Kind.TIMESTAMP if subject.endswith(" at"):
            first = f"When the {feature.names.words} is {subject.removesuffix(' at')}"
    said = [f"{first}{f': {limits}' if (limits := _limits_in_words(field)) else ''}."]
    if field.unique:
        said.append(f"No other {feature.names.words} of the owner has it.")
    if field.immutable:
        said.append("It cannot be changed.")
    if field.output:
        said.append("Set by the server.")
    if field.optional:
        said.append("Unset if there is none.")
    return " ".join(said)


def filter_comment(feature: Feature, field: Field) -> str:
    value = "this value" if field.kind is not Kind.REF else f"this {words(field.name.removesuffix('_id'))}; a UUID"
    return f"Only {feature.names.many} with {value} in `{field.name}`. All if unset."


def _limits_in_words(field: Field) -> str:
    single = _value_in_words(field)
    if field.items is None:
        return single
    number = f"{field.items.least} to {field.items.most}" if field.items.least else f"at most {field.items.most}"
    return f"{number}, each {single}" if single else f"{number} values"


def _value_in_words(field: Field) -> str:
    least, most = field.limits.least, field.limits.most
    match field.kind:
        case Kind.STRING:
            length = f"{most}" if least == most else f"{least} to {most}" if least else f"up to {most}"
            characters = "that match the pattern" if field.pattern else ""
            no_control = (
                "no control characters except tabs and line breaks" if field.multiline else "no control characters"
            )
            return f"{length} characters {characters}".rstrip() + ("" if field.pattern else f", {no_control}")
        case Kind.UUID | Kind.REF:
            return "a UUID"
        case Kind.DATE:
            return "a date, such as 2026-11-30"
        case Kind.JSON:
            return "a JSON object"
        case Kind.FLOAT | Kind.INT32 | Kind.INT64:
            return _range_in_words(least, most)
    return ""


def _range_in_words(least: Decimal | int | None, most: Decimal | int | None) -> str:
    if least is not None and most is not None:
        return f"{least} to {most}"
    return f"at least {least}" if least is not None else f"at most {most}" if most is not None else ""
