"""The reasons of the contract: Accord's and the application's. On the wire both have the name without the prefix."""

from collections.abc import Iterator
from functools import cache
from typing import Final, TypeAlias

from google.protobuf.descriptor import EnumDescriptor, EnumValueDescriptor

from accord.app.v1 import reasons_pb2
from accord.errors.v1 import errors_pb2
from accord.errors.v1.errors_pb2 import Answer, Reason
from accord_rpc.application import number_faults, path, values

AnyReason: TypeAlias = Reason.ValueType | reasons_pb2.Reason.ValueType

REASONS: Final[dict[int, EnumValueDescriptor]] = {
    value.number: value for value in values(Reason.DESCRIPTOR, reasons_pb2.Reason.DESCRIPTOR)
}
"""By number."""


@cache
def reason_name(reason: AnyReason) -> str:
    """`TASK_NOT_FOUND` for `REASON_TASK_NOT_FOUND`."""
    return REASONS[reason].name.removeprefix("REASON_")


@cache
def answer_of(reason: AnyReason) -> Answer:
    return _answer(REASONS[reason])


def _answer(value: EnumValueDescriptor) -> Answer:
    return value.GetOptions().Extensions[errors_pb2.answer]


def reason_faults(
    accord: EnumDescriptor = Reason.DESCRIPTOR, application: EnumDescriptor = reasons_pb2.Reason.DESCRIPTOR
) -> list[str]:
    """A sentence for each reason without code or message, and for each that clients could not distinguish."""
    return [
        *number_faults(accord, application),
        *_answer_faults(accord, application),
        *(
            f"{path(value)}: Accord has a reason with this name"
            for value in application.values
            if value.number and value.name in accord.values_by_name
        ),
    ]


def _answer_faults(accord: EnumDescriptor, application: EnumDescriptor) -> Iterator[str]:
    for value in values(accord, application):
        if not (_answer(value).code and _answer(value).message):
            yield f"{path(value)}: declares no status code or no message (option accord.errors.v1.answer)"
    for value in application.values:
        if _answer(value).pipeline:
            yield f"{path(value)}: only reasons of Accord's pipeline set `pipeline`; list it in the methods that return it"
