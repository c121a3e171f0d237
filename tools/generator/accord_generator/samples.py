"""Values of fields for the generated tests, written as Python."""

from datetime import UTC, datetime
from decimal import Decimal

from accord_generator.contract import enum_prefix
from accord_generator.feature import Feature
from accord_generator.fields import Field, Kind
from accord_rpc.openapi.values import matching

UUID_TEXT = "01890000-0000-7000-8000-000000000001"


def sample(feature: Feature, field: Field, number: int = 0) -> str:
    """A valid value; those of different numbers below 2 differ where the limits permit it."""
    single = _single(feature, field, number)
    if field.items is None:
        return single
    count = max(int(field.items.least or 0), 1)
    return f"[{', '.join([single] * count)}]"


def _single(feature: Feature, field: Field, number: int) -> str:
    least, most = field.limits.least, field.limits.most
    match field.kind:
        case Kind.STRING:
            return repr(_text(field, number))
        case Kind.INT32 | Kind.INT64 | Kind.FLOAT:
            return _number(least, most, number)
        case Kind.BOOL:
            return str(number == 0)
        case Kind.ENUM:
            return f'"{enum_prefix(feature, field)}_{field.values[number % len(field.values)].upper()}"'
        case Kind.TIMESTAMP:
            return f"datetime({datetime.now(UTC).year + 1}, 1, {number + 1}, tzinfo=UTC)"
        case Kind.DATE:
            return f'"2027-01-0{number + 1}"'
        case Kind.JSON:
            return f'{{"number": {number}}}'
        case Kind.UUID:
            return f'"{UUID_TEXT[:-1]}{number + 1}"'
    raise AssertionError(field.kind)


def _text(field: Field, number: int) -> str:
    if field.pattern:
        return matching(field.pattern, number)
    least, most = int(field.limits.least or 0), int(field.limits.most or 1)
    base = f"{field.name.replace('_', ' ')} {'ab'[number % 2]}"[-most:]
    return base + "x" * (least - len(base))


def _number(least: int | Decimal | None, most: int | Decimal | None, number: int) -> str:
    start = least if least is not None else min(most, 1) if most is not None else 1
    value = start + number
    return str(start if most is not None and value > most else value)
