"""Enums with two parts: Accord's values, and those that the application adds in `accord.app.v1`."""

from collections.abc import Iterator
from itertools import chain
from typing import Final

from google.protobuf.descriptor import EnumDescriptor, EnumValueDescriptor

FIRST_NUMBER: Final = 1000
"""Of the application. Lower numbers belong to Accord, so that an upgrade never takes a number of the application."""


def values(accord: EnumDescriptor, application: EnumDescriptor) -> list[EnumValueDescriptor]:
    """The values of both, without the zero values."""
    return [value for value in chain(accord.values, application.values) if value.number]


def path(value: EnumValueDescriptor) -> str:
    """`accord.app.v1.REASON_NOTE_NOT_FOUND`: two enums may have values with the same name."""
    return f"{value.type.file.package}.{value.name}"


def number_faults(accord: EnumDescriptor, application: EnumDescriptor) -> Iterator[str]:
    """A sentence for each number outside the range of its enum, and for each number with two names."""
    for value in accord.values:
        if value.number >= FIRST_NUMBER:
            yield f"{path(value)}: numbers from {FIRST_NUMBER} belong to the application (accord.app.v1)"
    for value in application.values:
        if value.number and value.number < FIRST_NUMBER:
            yield f"{path(value)}: numbers below {FIRST_NUMBER} belong to Accord"
    names: dict[int, str] = {}
    for value in values(accord, application):
        if (first := names.setdefault(value.number, value.name)) != value.name:
            yield f"{path(value)}: shares its number {value.number} with {first}"
