"""The filters of a list: an equal value, or one among the elements of an array."""

from dataclasses import replace

from accord_generator import columns, contract
from accord_generator.feature import Feature
from accord_generator.fields import NUMBERS, Field, Kind
from accord_generator.names import singular_of


def single(field: Field) -> Field:
    return replace(field, items=None, optional=False, sensitive=False)


def filter_name(field: Field) -> str:
    return (singular_of(field.name) or f"any_{field.name}") if field.is_array else field.name


def filter_type(feature: Feature, field: Field) -> str:
    value = contract.proto_type(feature, single(field))
    # Whether false or 0 was given must be visible.
    return f"optional {value}" if field.kind is Kind.BOOL or field.kind in NUMBERS else value


def filters_of(feature: Feature) -> list[dict[str, str]]:
    """Name, Python type and SQL of each. A filter that is not given does not apply."""
    model = feature.names.message
    found = []
    for name in feature.filters:
        field = feature.field(name)
        value = columns.python_type(single(field))
        found.append({"name": filter_name(field), "type": f"{value} | None", "sql": _condition(model, field)})
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


def _condition(model: str, field: Field) -> str:
    column, parameter = f"{model}.{field.name}", filter_name(field)
    if field.is_array:
        return f'bindparam("{parameter}", type_={column}.type.item_type) == any_({column})'
    return f'{column} == bindparam("{parameter}")'
