"""Writes the exceptions of packages/client, one for each status code and one for each reason of the contract."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from google.protobuf import message_factory
from google.protobuf.descriptor_pb2 import EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc.code_pb2 import Code

ERRORS = "accord/errors/v1/errors.proto"
PREFIX = "REASON_"
HEAD = '''"""What calls fail with: an exception for each status code, and below it one for each of the contract's reasons.

Generated from proto/accord/errors/v1/errors.proto by `make stubs`, never edited.
"""

from collections.abc import Mapping
from typing import Final

import grpc

from accord_client.call_failed import CallFailed
'''


class Reason(NamedTuple):
    """As callers see it: `TASK_NOT_FOUND`, the status code's name, and what the contract says above it."""

    name: str
    code: str
    comment: str


class AmbiguousName(Exception):
    """A reason is named like a status code, and has another."""


def client_errors(image: FileDescriptorSet) -> str:
    """The module `accord_client.errors`, formatted."""
    codes = [name for name in Code.DESCRIPTOR.values_by_name if name != "OK"]
    by_name = {reason.name: reason for reason in _reasons(image)}
    classes = [_of_code(code, by_name.get(code)) for code in codes]
    classes += [_of_reason(reason) for reason in by_name.values() if reason.name not in codes]
    return "\n\n".join(
        [HEAD, *classes, _table("BY_CODE", "grpc.StatusCode", _code_entries(codes)) + _by_reason(by_name)]
    )


def _of_code(code: str, reason: Reason | None) -> str:
    """A reason that is named like its code is that code's class: whoever catches the one catches the other."""
    if reason is None:
        return _class(code, "CallFailed", f"A call that ended with {code}.", f"code = grpc.StatusCode.{code}")
    if reason.code != code:
        raise AmbiguousName(f"{PREFIX}{reason.name} is named like a status code, and is answered with {reason.code}.")
    return _class(code, "CallFailed", reason.comment, f"code = grpc.StatusCode.{code}", f'reason = "{code}"')


def _of_reason(reason: Reason) -> str:
    return _class(reason.name, _pascal(reason.code), reason.comment, f'reason = "{reason.name}"')


def _class(name: str, parent: str, comment: str, *lines: str) -> str:
    body = "\n".join(f"    {line}" for line in lines)
    return f'class {_pascal(name)}({parent}):\n    """{comment}"""\n\n{body}\n'


def _pascal(name: str) -> str:
    return name.title().replace("_", "")


def _table(name: str, key: str, entries: Iterable[str]) -> str:
    lines = "".join(f"    {entry},\n" for entry in entries)
    return f"{name}: Final[Mapping[{key}, type[CallFailed]]] = {{\n{lines}}}\n"


def _code_entries(codes: Iterable[str]) -> Iterator[str]:
    return (f"grpc.StatusCode.{code}: {_pascal(code)}" for code in codes)


def _by_reason(names: Iterable[str]) -> str:
    return _table("BY_REASON", "str", (f'"{name}": {_pascal(name)}' for name in names))


def _reasons(image: FileDescriptorSet) -> Iterator[Reason]:
    """Read with the descriptors of the image itself: what is installed may be of another day."""
    pool = DescriptorPool()
    for file in image.file:
        pool.Add(file)
    answer = pool.FindExtensionByName("accord.errors.v1.answer")
    options: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName("google.protobuf.EnumValueOptions"))
    [errors] = [file for file in image.file if file.name == ERRORS]
    place = next(index for index, enum in enumerate(errors.enum_type) if enum.name == "Reason")
    for index, value in enumerate(errors.enum_type[place].value):
        if value.number:
            told = options.FromString(value.options.SerializeToString()).Extensions[answer]
            yield Reason(value.name.removeprefix(PREFIX), Code.Name(told.code), _comment(errors, place, index))


def _comment(file: FileDescriptorProto, enum: int, value: int) -> str:
    path = [
        FileDescriptorProto.ENUM_TYPE_FIELD_NUMBER,
        enum,
        EnumDescriptorProto.VALUE_FIELD_NUMBER,
        value,
    ]
    found = next(place for place in file.source_code_info.location if list(place.path) == path)
    lines = found.leading_comments.strip().replace("\\", "\\\\").splitlines()
    return "\n    ".join(line.strip() for line in lines)
