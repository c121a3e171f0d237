"""The files of a feature, from templates. `buf format` and `ruff` bring them into their final form."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from textwrap import wrap
from typing import Any, Final, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from accord_generator import columns, contract
from accord_generator.feature import Feature, Owner
from accord_generator.fields import NUMBERS, Field, Kind
from accord_generator.names import singular_of
from accord_generator.repository import ACCORDS_REASONS, HANDLERS, PROTO, QUERIES, SCHEMA, TESTS, Repository
from accord_generator.samples import sample

_TEMPLATES: Final = {
    PROTO: "proto.j2",
    SCHEMA: "schema.j2",
    QUERIES: "queries.j2",
    HANDLERS: "handlers.j2",
    TESTS: "tests.j2",
}
_WIDTH: Final = 120
_REQUEST_ID: Final = (
    "A UUID that the client generates. A call with the same id within 24 hours returns the response of the first."
)
_ID: Final = ("(buf.validate.field).ignore = IGNORE_IF_ZERO_VALUE", "(buf.validate.field).string.uuid = true")
_OUTPUT: Final = "(google.api.field_behavior) = OUTPUT_ONLY"
_BOUNDS: Final = (
    "(buf.validate.field).timestamp = {gte: {seconds: -62135596800} lte: {seconds: 253402300799 nanos: 999999999}}"
)


# The owner in queries, and its value in a method of the feature.
_PARAMETERS: Final = {
    Owner.ORGANIZATION: "organization_id",
    Owner.ACCOUNT: "owner_id",
    Owner.EITHER: "owner_id",
}
_VALUES: Final = {
    Owner.ORGANIZATION: "caller().active_organization_id",
    Owner.ACCOUNT: "caller().account_id",
    Owner.EITHER: "caller().owner_id",
}


class Line(NamedTuple):
    """A field of a message."""

    comment: str
    type: str
    name: str
    options: Sequence[str] = ()


def render(feature: Feature, repository: Repository) -> dict[str, str]:
    """Text by path. Nothing is written."""
    environment = Environment(
        loader=PackageLoader("accord_generator"),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  # the output is code
    )
    context = _context(feature, repository)
    texts = {
        path.format(feature.names.plural): environment.get_template(template).render(context)
        for path, template in _TEMPLATES.items()
    }
    return {path: _with_short_comments(text) if path.endswith(".proto") else text for path, text in texts.items()}


def _with_short_comments(text: str) -> str:
    """No formatter breaks the lines of comments."""
    lines = []
    for line in text.splitlines():
        indent, found, comment = line.partition("// ")
        if found and not indent.strip():
            lines += wrap(comment, _WIDTH, initial_indent=f"{indent}// ", subsequent_indent=f"{indent}// ")
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def reasons_of(feature: Feature) -> list[tuple[str, str, str, str]]:
    """The application's reasons that the feature declares: name, code, comment and message."""
    n = feature.names
    missing = f"The {n.words} does not exist"
    found = [
        (
            f"REASON_{n.constant}_NOT_FOUND",
            "NOT_FOUND",
            f"{missing} or belongs to another owner. Metadata: `{n.id}`.",
            f"{missing}. Check the {n.id}.",
        )
    ]
    for field in feature.uniques:
        taken = f"Another {n.words} has the same {field.name.replace('_', ' ')}."
        found.append(
            (f"REASON_{n.constant}_{field.name.upper()}_TAKEN", "ALREADY_EXISTS", taken, f"{taken} Choose another.")
        )
    return found


def permissions_of(feature: Feature) -> list[tuple[str, str, str]]:
    """Name of the value, stored name and comment. None for rows of an account or of the installation."""
    n = feature.names
    if not has_permissions(feature):
        return []
    return [
        (f"PERMISSION_{n.constants}_READ", f"{n.plural}.read", f"Read {n.many}."),
        (f"PERMISSION_{n.constants}_WRITE", f"{n.plural}.write", f"Create, change and delete {n.many}."),
    ]


def is_repeatable(feature: Feature) -> bool:
    """Whether a Create request has a `request_id`: responses with sensitive fields are not stored."""
    return not any(field.sensitive for field in feature.fields)


def has_permissions(feature: Feature) -> bool:
    return owner_of(feature) in (Owner.ORGANIZATION, Owner.EITHER)


def owner_of(feature: Feature) -> Owner:
    return feature.parent.owner if feature.parent else feature.owner


def _context(feature: Feature, repository: Repository) -> dict[str, Any]:
    n, owner, methods = feature.names, owner_of(feature), set(map(str, feature.methods))
    parent = feature.parent.names if feature.parent else None
    param, value = _PARAMETERS[owner], _VALUES[owner]
    not_found = f"REASON_{n.constant}_NOT_FOUND"
    taken = [f"REASON_{n.constant}_{field.name.upper()}_TAKEN" for field in feature.uniques]
    referred = [f"REASON_{each.names.constant}_NOT_FOUND" for each in feature.referred]
    parents = [f"REASON_{parent.constant}_NOT_FOUND"] if parent else []
    enums = [field for field in feature.fields if field.kind is Kind.ENUM]
    filters = _filters(feature)
    declared = {not_found, *taken, *referred, *parents}
    elsewhere = sorted(reason for reason in declared if repository.reason_file(reason) == ACCORDS_REASONS)
    context: dict[str, Any] = {
        "f": feature,
        "n": n,
        "owner": str(owner),
        "parent": parent,
        "methods": methods,
        "permissions": has_permissions(feature),
        "personal": owner is Owner.EITHER,
        "credentials": "credentials: [CREDENTIAL_SESSION, CREDENTIAL_API_KEY, CREDENTIAL_SERVICE_TOKEN]"
        if has_permissions(feature)
        else "credentials: CREDENTIAL_SESSION",
        "param": param,
        "value": value,
        "not_found": not_found,
        "not_found_name": not_found.removeprefix("REASON_"),
        "taken": taken,
        "parent_reasons": parents,
        "create_reasons": referred + taken,
        "update_reasons": referred + taken,
        "etag_reason": "REASON_ETAG_MISMATCH" if feature.has_etag else "",
        "app_reasons": sorted(declared - set(elsewhere)),
        "accord_reasons": elsewhere,
        "enums": enums,
        "enum_name": partial(contract.enum_name, feature),
        "enum_prefix": partial(contract.enum_prefix, feature),
        "repeatable": is_repeatable(feature),
        "uses_struct": any(field.kind is Kind.JSON for field in feature.fields),
        "collection": f"/v1/{_camel(parent.plural)}/{{{parent.id}}}/{_camel(n.plural)}"
        if parent
        else f"/v1/{_camel(n.plural)}",
        "item": f"/v1/{_camel(n.plural)}",
        "resource": _resource(feature, owner),
        "create_request": _create_request(feature),
        "list_request": _list_request(feature),
        "changeable": ", ".join(f"`{field.name}`" for field in feature.changeable),
        "full_only": ", ".join(f"`{field.name}`" for field in _only_full(feature)),
        "only_full": ", ".join(f"{n.message}.{field.name}" for field in _only_full(feature)),
        "column": columns.column,
        "python_type": columns.python_type,
        "new_type": columns.new_type,
        "checks": [check for field in feature.fields for check in columns.checks(field)],
        "bases": _bases(feature, owner),
        "filters": [each for each in filters if each["type"]],
        "conditions": [each for each in filters if each["sql"]],
        "sample": partial(sample, feature),
        "owner_argument": lambda e: f"{_PARAMETERS[e.owner]}={param}",
        "query_modules": sorted(
            {n.plural, *(e.names.plural for e in feature.referred), *([parent.plural] if parent else [])}
        ),
    }
    return context | _sentences(feature, context) | _query_texts(feature, context) | _test_texts(feature, context)


def _sentences(feature: Feature, context: dict[str, Any]) -> dict[str, str]:
    n, parent = feature.names, context["parent"]
    owners = {
        "organization": (
            " of organizations",
            " of an organization",
            f"The {n.many} of the active organization. One of another organization is not found.",
        ),
        "account": (
            " of accounts",
            " of an account",
            f"The {n.many} of the caller. One of another account is not found.",
        ),
        "either": (
            " of accounts and organizations",
            "",
            f"The {n.many} of the active organization or, without one, of the caller. One of another owner is not found.",
        ),
    }
    of_whom, of_one, comment = owners[context["owner"]]
    if parent:
        of_whom, of_one = f" of {parent.many}", f" of {parent.a}"
    fails = [f"{name.removeprefix('REASON_')}" for name in [*context["create_reasons"]]]
    failing = f" Returns {' or '.join(fails)} if a reference or value cannot be used." if fails else ""
    stale = ", and ETAG_MISMATCH if it is not the version of "
    return {
        "of_whom": of_whom,
        "of_one": of_one,
        "service_comment": comment,
        "parent_missing": f", and {parent.constant}_NOT_FOUND if the {parent.words} does not exist" if parent else "",
        "create_fails": failing,
        "update_fails": failing,
        "undelete_fails": f" Returns {' or '.join(t.removeprefix('REASON_') for t in context['taken'])} if another one has its value."
        if context["taken"]
        else "",
        "stale_update": f"{stale}`{n.singular}.etag`" if feature.has_etag else "",
        "stale_delete": f"{stale}`etag`" if feature.has_etag else "",
    }


def _query_texts(feature: Feature, context: dict[str, Any]) -> dict[str, str]:
    n, owner, param = feature.names, context["owner"], context["param"]
    parent = context["parent"]
    if parent:
        parameters = f"{parent.id}: UUID, "
        arguments = f"{parent.id}={parent.id}, "
        given = arguments
        listed = f'{n.message}.{parent.id} == bindparam("{parent.id}")' + ", _OURS"
    else:
        parameters, arguments, given = {
            "organization": (
                "organization_id: UUID, ",
                "organization_id=organization_id, ",
                "organization_id=organization_id, ",
            ),
            "account": ("created_by: UUID, ", "created_by=created_by, ", "created_by=me.account_id, "),
            "either": (
                "created_by: UUID, organization_id: UUID | None, ",
                "created_by=created_by, organization_id=organization_id, ",
                "created_by=me.account_id, organization_id=me.organization_id, ",
            ),
        }[owner]
        listed = "_OURS"
    return {
        "owned_by": parent.id if parent else param,
        "insert_parameters": parameters,
        "insert_arguments": arguments,
        "create_arguments": given,
        "listed": listed,
        "list_parameters": (f"{parent.id}: UUID, " if parent else "") + f"{param}: UUID, ",
        "list_arguments": (f"{parent.id}={parent.id}, " if parent else "") + f"{param}={param}",
    }


def _test_texts(feature: Feature, context: dict[str, Any]) -> dict[str, Any]:
    parent, in_organization = context["parent"], context["owner"] in ("organization", "either")
    plain = [field for field in feature.changeable if not field.reference]
    differing = [field for field in plain if sample(feature, field, 0) != sample(feature, field, 1)]
    changed = next(iter([*differing, *plain]), None)
    uses_rows = bool(parent or feature.references)
    fixtures = (
        ["world: World", "owner: Person", *(["organization: UUID"] if in_organization else [])] if uses_rows else []
    )
    organization = "organization" if in_organization else "None"
    listing = f'{parent.id}=new["{parent.id}"]' if parent else ""
    return {
        "in_organization": in_organization,
        "new_fixtures": ", ".join(fixtures),
        "row": lambda plural: f'str(world.row(metadata.tables["{plural}"], owner, {organization})["id"])',
        "list_of": listing,
        "list_of_comma": f"{listing}, " if listing else "",
        "changed": changed,
        "changed_value": sample(feature, changed, 1) if changed is not None else "",
        "checked": _checked(feature),
        "filter_cases": _filter_cases(feature),
        "limit_cases": _limit_cases(feature),
    }


def _checked(feature: Feature) -> list[dict[str, str]]:
    """Values that a message shows as they were given."""
    made = []
    for field in feature.settable:
        shown = f"{feature.names.singular}.{field.name}"
        if field.is_array:
            made.append(
                {"check": f'list({shown}) == new["{field.name}"]'}
                if field.kind is not Kind.ENUM
                else {"check": f'len({shown}) == len(new["{field.name}"])'}
            )
        elif field.kind in NUMBERS or field.kind in (Kind.STRING, Kind.BOOL, Kind.UUID, Kind.REF, Kind.DATE):
            made.append({"check": f'{shown} == new["{field.name}"]'})
    return made


def _filter_cases(feature: Feature) -> list[dict[str, str]]:
    cases = []
    for name in feature.filters:
        field = feature.field(name)
        first, other = sample(feature, field, 0), sample(feature, field, 1)
        if field.reference or field.kind in (Kind.JSON, Kind.TIMESTAMP, Kind.DATE) or first == other:
            continue
        value = first[1:-1] if field.is_array else first
        cases.append({"filters": f'{{"{_filter_name(field)}": {value}}}', "expected": "[0]"})
    if feature.search:
        text = sample(feature, feature.field(feature.search), 0)
        cases.append(
            {
                "filters": f'{{"{feature.search}_contains": {text.upper() if text == text.lower() else text}}}',
                "expected": "[0]",
            }
        )
    cases.append({"filters": '{"created_before": datetime(2000, 1, 1, tzinfo=UTC)}', "expected": "[]"})
    return cases


def _limit_cases(feature: Feature) -> list[dict[str, str]]:
    cases = []
    for field in feature.settable:
        if field.is_array:
            assert field.items is not None
            if int(field.items.most or 0) <= 100:
                cases.append(
                    {
                        "fields": f'{{"{field.name}": {sample(feature, field)[:1]}{_element(feature, field)}] * {int(field.items.most or 0) + 1}}}',
                        "path": field.name,
                    }
                )
        elif field.kind is Kind.STRING and not field.pattern:
            cases.append({"fields": f'{{"{field.name}": "x" * {int(field.limits.most or 0) + 1}}}', "path": field.name})
        elif field.kind in NUMBERS and field.limits.most is not None:
            cases.append({"fields": f'{{"{field.name}": {field.limits.most + 1}}}', "path": field.name})
        elif field.kind in NUMBERS and field.limits.least is not None:
            cases.append({"fields": f'{{"{field.name}": {field.limits.least - 1}}}', "path": field.name})
    return cases


def _element(feature: Feature, field: Field) -> str:
    return sample(feature, field)[1:-1].split(", ")[0]


def _only_full(feature: Feature) -> list[Field]:
    return [field for field in feature.fields if feature.basic and field.name not in feature.basic]


def _bases(feature: Feature, owner: Owner) -> str:
    bases = ["OwnedByAccount"] if owner is Owner.ACCOUNT and not feature.parent else []
    bases += ["Shared"] * feature.soft_delete + ["Versioned"] * feature.has_etag
    return ", ".join([*bases, "Model"])


def _resource(feature: Feature, owner: Owner) -> list[Line]:
    n = feature.names
    lines = [
        Line("A UUID, generated by the server.", "string", "id", ["(google.api.field_behavior) = IDENTIFIER", *_ID])
    ]
    if feature.parent:
        parent = feature.parent.names
        lines.append(
            Line(f"The {parent.words}; a UUID.", "string", parent.id, ["(google.api.field_behavior) = IMMUTABLE", *_ID])
        )
    full = {field.name for field in _only_full(feature)}
    for field in feature.fields:
        options = contract.resource_options(field) + ["(accord.policy.v1.full_view) = true"] * (field.name in full)
        lines.append(Line(contract.comment(feature, field), contract.proto_type(feature, field), field.name, options))
    if owner is Owner.EITHER and not feature.parent:
        lines.append(Line(f"The account that created the {n.words}; a UUID.", "string", "created_by", [_OUTPUT, *_ID]))
        lines.append(
            Line(
                f"The organization that owns the {n.words}; a UUID. Unset if the account owns it.",
                "optional string",
                "organization_id",
                [_OUTPUT, _ID[1]],
            )
        )
    time = "google.protobuf.Timestamp"
    lines.append(Line("When it was created.", time, "created_at", [_OUTPUT]))
    lines.append(Line("When it was last changed.", time, "updated_at", [_OUTPUT]))
    if feature.soft_delete:
        lines.append(
            Line("When it was deleted. Unset if it is not deleted.", f"optional {time}", "deleted_at", [_OUTPUT])
        )
    if feature.has_etag:
        lines.append(
            Line(
                "The version; a UUID that is new after each change. Send it back to change this version only.",
                "string",
                "etag",
                [*_ID],
            )
        )
    return lines


def _create_request(feature: Feature) -> list[Line]:
    lines = []
    if feature.parent:
        parent = feature.parent.names
        lines.append(
            Line(f"The {parent.words}; a UUID.", "string", parent.id, ["(buf.validate.field).string.uuid = true"])
        )
    for field in feature.settable:
        options = contract.create_options(field)
        type_ = contract.create_type(feature, field)
        lines.append(Line(contract.create_comment(feature, field), type_, field.name, options))
    if is_repeatable(feature):
        lines.append(Line(_REQUEST_ID, "string", "request_id", [*_ID]))
    return lines


def _list_request(feature: Feature) -> list[Line]:
    n = feature.names
    lines = []
    if feature.parent:
        parent = feature.parent.names
        lines.append(
            Line(f"The {parent.words}; a UUID.", "string", parent.id, ["(buf.validate.field).string.uuid = true"])
        )
    lines += [
        Line(
            "The maximum number of results: 1 to 1000. 50 if unset.",
            "int32",
            "page_size",
            ["(buf.validate.field).int32 = {gte: 0 lte: 1000}"],
        ),
        Line(
            "The `next_page_token` of the previous page. Empty for the first page. At most 2048 characters.",
            "string",
            "page_token",
            ["(buf.validate.field).string.max_len = 2048"],
        ),
    ]
    for name in feature.filters:
        field = feature.field(name)
        lines.append(
            Line(
                contract.filter_comment(feature, field),
                _filter_type(feature, field),
                _filter_name(field),
                contract.filter_options(_single(field)),
            )
        )
    if feature.search:
        most = feature.field(feature.search).limits.most
        rule = f'(buf.validate.field).string = {{max_len: {most} pattern: "{contract.escaped(contract.TEXT)}"}}'
        lines.append(
            Line(
                f"Only {n.many} whose {feature.search.replace('_', ' ')} contains this text, ignoring case; at most {most} characters.",
                "string",
                f"{feature.search}_contains",
                [rule],
            )
        )
    time = "google.protobuf.Timestamp"
    lines.append(
        Line(f"Only {n.many} created at or after this time; years 1 to 9999.", time, "created_from", [_BOUNDS])
    )
    lines.append(Line(f"Only {n.many} created before this time; years 1 to 9999.", time, "created_before", [_BOUNDS]))
    orders = ", ".join(json.dumps(text) for order in feature.orders for text in (order, f"{order} desc"))
    named = ", ".join(f"`{order}`" for order in feature.orders)
    lines.append(
        Line(
            f"{named}, followed by ` desc` for descending order. `created_at desc` if unset.",
            "string",
            "order_by",
            [f'(buf.validate.field).string = {{in: ["", {orders}]}}'],
        )
    )
    if feature.soft_delete:
        lines.append(Line("Whether to include deleted ones.", "bool", "show_deleted"))
    if feature.basic:
        full = ", ".join(f"`{field.name}`" for field in _only_full(feature))
        lines.append(
            Line(
                f"FULL includes {full}. BASIC if unset.",
                "accord.policy.v1.View",
                "view",
                ["(buf.validate.field).enum.defined_only = true"],
            )
        )
    return lines


def _single(field: Field) -> Field:
    return replace(field, items=None, optional=False, sensitive=False)


def _filter_name(field: Field) -> str:
    return (singular_of(field.name) or f"any_{field.name}") if field.is_array else field.name


def _filter_type(feature: Feature, field: Field) -> str:
    single = contract.proto_type(feature, _single(field))
    # Whether false or 0 was given must be visible.
    return f"optional {single}" if field.kind is Kind.BOOL or field.kind in NUMBERS else single


def _filters(feature: Feature) -> list[dict[str, str]]:
    """Name, Python type and SQL of each. A filter that is not given does not apply."""
    model = feature.names.message
    found = []
    for name in feature.filters:
        field = feature.field(name)
        single = columns.python_type(_single(field))
        sql = columns.filter_condition(feature, field).replace(
            f'bindparam("{field.name}"', f'bindparam("{_filter_name(field)}"'
        )
        found.append({"name": _filter_name(field), "type": f"{single} | None", "sql": sql})
    if feature.search:
        found.append(
            {"name": f"{feature.search}_contains", "type": "str | None", "sql": f"Contains({model}.{feature.search})"}
        )
    found.append(
        {"name": "created_from", "type": "datetime | None", "sql": f'{model}.created_at >= bindparam("created_from")'}
    )
    found.append(
        {
            "name": "created_before",
            "type": "datetime | None",
            "sql": f'{model}.created_at < bindparam("created_before")',
        }
    )
    if feature.soft_delete:
        found.append({"name": "show_deleted", "type": "bool", "sql": ""})
    return found


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)
