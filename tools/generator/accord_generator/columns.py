"""Fields as columns, and as values in queries."""

from accord_generator.fields import Field, Kind

_PYTHON = {
    Kind.STRING: "str",
    Kind.INT32: "int",
    Kind.INT64: "int",
    Kind.FLOAT: "float",
    Kind.BOOL: "bool",
    Kind.ENUM: "str",
    Kind.TIMESTAMP: "datetime",
    Kind.DATE: "date",
    Kind.JSON: "dict[str, Any]",
    Kind.UUID: "UUID",
    Kind.REF: "UUID",
}
_ELEMENTS = {
    Kind.INT32: "Integer",
    Kind.INT64: "BigInteger",
    Kind.FLOAT: "Float",
    Kind.BOOL: "Boolean",
    Kind.UUID: "Uuid",
    Kind.DATE: "Date",
}


def python_type(field: Field) -> str:
    """Of the value in queries, with None if it can be unset."""
    single = _PYTHON[field.kind]
    return f"list[{single}]" if field.is_array else f"{single} | None" if field.optional else single


def new_type(field: Field) -> str:
    """In the TypedDict of a new row: a column with a default may be left out."""
    may_be_left_out = field.optional or field.is_array or field.default is not None or field.kind is Kind.JSON
    return f"NotRequired[{python_type(field)}]" if may_be_left_out else python_type(field)


def column(field: Field) -> str:
    """The line of the model."""
    arguments = [*_type(field), *_default(field)]
    if field.kind is Kind.REF:
        arguments.append("index=True")
    made = f" = mapped_column({', '.join(arguments)})" if arguments else ""
    return f"{field.name}: Mapped[{python_type(field)}]{made}"


def _type(field: Field) -> list[str]:
    values = ", ".join(f'"{value}"' for value in field.values)
    if field.is_array:
        if field.kind is Kind.ENUM:
            return [f"some_of({values})"]
        element = f"String({field.limits.most})" if field.kind is Kind.STRING else _ELEMENTS[field.kind]
        return [f"ARRAY({element})"]
    match field.kind:
        case Kind.STRING:
            return [f"String({field.limits.most})"]
        case Kind.INT64:
            return ["BigInteger"]
        case Kind.ENUM:
            return [f'one_of({values}, name="{field.name}")']
        case Kind.REF:
            assert field.reference is not None
            return [f'ForeignKey("{field.reference.feature}.id", ondelete="{field.reference.on_delete.upper()}")']
    return []


def _default(field: Field) -> list[str]:
    if field.is_array:
        return ['server_default="{}"']
    if field.optional:
        return []
    match field.kind, field.default:
        case Kind.BOOL, default:
            return ["server_default=true()" if default is True else "server_default=false()"]
        case Kind.JSON, _:
            return ['server_default="{}"']
        case _, None:
            return []
        case Kind.TIMESTAMP, _:
            return ["server_default=func.now()"]
        case Kind.DATE, _:
            return ["server_default=func.current_date()"]
        case _, default:
            return [f"server_default={str(default)!r}"]


def checks(field: Field) -> list[str]:
    """CHECK constraints that the contract's rules and the type of the column do not replace for other writers."""
    if field.kind is Kind.STRING and not field.is_array and field.limits.least:
        least = field.limits.least
        return [
            f'CheckConstraint("char_length({field.name}) >= {least}", name="{field.name}_not_{"empty" if least == 1 else "short"}")'
        ]
    if field.kind is Kind.JSON:
        return [f"""CheckConstraint("jsonb_typeof({field.name}) = 'object'", name="{field.name}_is_an_object")"""]
    if field.kind is Kind.ENUM and field.is_array:
        values = ", ".join(f"'{value}'" for value in field.values)
        return [f'CheckConstraint("{field.name} <@ ARRAY[{values}]::varchar[]", name="{field.name}_are_known")']
    return []
