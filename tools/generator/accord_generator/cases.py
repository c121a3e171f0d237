"""What the generated tests are about: the first values, the filters and the limits of a feature."""

from typing import Any

from accord_generator.feature import Feature
from accord_generator.fields import NUMBERS, Field, Kind
from accord_generator.filters import filter_name
from accord_generator.samples import sample


def cases_of(feature: Feature, context: dict[str, Any]) -> dict[str, Any]:
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
        cases.append({"filters": f'{{"{filter_name(field)}": {value}}}', "expected": "[0]"})
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
