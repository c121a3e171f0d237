"""The files of a feature, from templates. `buf format` and `ruff` bring them into their final form."""

from functools import partial
from textwrap import wrap
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from accord_generator import columns, contract, messages
from accord_generator.cases import cases_of
from accord_generator.feature import Feature, Owner
from accord_generator.fields import Kind
from accord_generator.filters import filters_of
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


def _context(feature: Feature, repository: Repository) -> dict[str, Any]:
    n, owner, methods = feature.names, feature.rows_owner, set(map(str, feature.methods))
    parent = feature.parent.names if feature.parent else None
    param, value = _PARAMETERS[owner], _VALUES[owner]
    not_found = f"REASON_{n.constant}_NOT_FOUND"
    taken = [f"REASON_{n.constant}_{field.name.upper()}_TAKEN" for field in feature.uniques]
    referred = [f"REASON_{each.names.constant}_NOT_FOUND" for each in feature.referred]
    parents = [f"REASON_{parent.constant}_NOT_FOUND"] if parent else []
    enums = [field for field in feature.fields if field.kind is Kind.ENUM]
    filters = filters_of(feature)
    declared = {not_found, *taken, *referred, *parents}
    elsewhere = sorted(reason for reason in declared if repository.reason_file(reason) == ACCORDS_REASONS)
    context: dict[str, Any] = {
        "f": feature,
        "n": n,
        "owner": str(owner),
        "parent": parent,
        "methods": methods,
        "permissions": feature.has_permissions,
        "personal": owner is Owner.EITHER,
        "credentials": "credentials: [CREDENTIAL_SESSION, CREDENTIAL_API_KEY, CREDENTIAL_SERVICE_TOKEN]"
        if feature.has_permissions
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
        "repeatable": feature.is_repeatable,
        "uses_struct": any(field.kind is Kind.JSON for field in feature.fields),
        "collection": f"/v1/{parent.route}/{{{parent.id}}}/{n.route}" if parent else f"/v1/{n.route}",
        "item": f"/v1/{n.route}",
        "resource": messages.resource(feature),
        "create_request": messages.create_request(feature),
        "list_request": messages.list_request(feature),
        "changeable": ", ".join(f"`{field.name}`" for field in feature.changeable),
        "full_only": ", ".join(f"`{field.name}`" for field in feature.only_full),
        "only_full": ", ".join(f"{n.message}.{field.name}" for field in feature.only_full),
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
    return context | _sentences(feature, context) | _query_texts(feature, context) | cases_of(feature, context)


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


def _bases(feature: Feature, owner: Owner) -> str:
    bases = ["OwnedByAccount"] if owner is Owner.ACCOUNT and not feature.parent else []
    bases += ["Shared"] * feature.soft_delete + ["Versioned"] * feature.has_etag
    return ", ".join([*bases, "Model"])
