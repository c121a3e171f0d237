"""Generates the exceptions of packages/client: one for each status code and one for each reason of the contract."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from google.protobuf import message_factory
from google.protobuf.descriptor_pb2 import EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc.code_pb2 import Code

FILES = ("accord/errors/v1/errors.proto", "accord/app/v1/reasons.proto")  # Accord's reasons, then the application's
PREFIX = "REASON_"
HEAD = '''"""The exceptions of failed calls: one for each status code, and a subclass for each reason of the contract.

`make stubs` generates this file from proto/accord/errors/v1/errors.proto and proto/accord/app/v1/reasons.proto.
"""

from collections.abc import Mapping
from typing import Final

import grpc

from accord_client.call_failed import CallFailed
'''


class Reason(NamedTuple):
    """Its name on the wire, such as `TASK_NOT_FOUND`, the name of its status code, and its comment in the contract."""

    name: str
    code: str
    comment: str


class AmbiguousName(Exception):
    """Two exceptions would have one name: of two reasons, or of a reason and another status code."""


def client_errors(image: FileDescriptorSet) -> str:
    """The module `accord_client.errors`, formatted."""
    codes = [name for name in Code.DESCRIPTOR.values_by_name if name != "OK"]
    by_name: dict[str, Reason] = {}
    for reason in _reasons(image):
        if by_name.setdefault(reason.name, reason) is not reason:
            raise AmbiguousName(f"{PREFIX}{reason.name}: Accord and the application have a reason with this name.")
    classes = [_of_code(code, by_name.get(code)) for code in codes]
    classes += [_of_reason(reason) for reason in by_name.values() if reason.name not in codes]
    return "\n\n".join(
        [HEAD, *classes, _table("BY_CODE", "grpc.StatusCode", _code_entries(codes)) + _by_reason(by_name)]
    )


def _of_code(code: str, reason: Reason | None) -> str:
    """A reason with the name of its code shares the code's class."""
    if reason is None:
        return _class(code, "CallFailed", f"A call that ended with {code}.", f"code = grpc.StatusCode.{code}")
    if reason.code != code:
        raise AmbiguousName(f"{PREFIX}{reason.name} has the name of a status code, and the code {reason.code}.")
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
    """Read with the image's own descriptors, because the installed ones may be older."""
    pool = DescriptorPool()
    for file in image.file:
        pool.Add(file)
    extension = pool.FindExtensionByName("accord.errors.v1.answer")
    options: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName("google.protobuf.EnumValueOptions"))
    by_file = {file.name: file for file in image.file}
    for file in (by_file[name] for name in FILES):
        position = next(index for index, enum in enumerate(file.enum_type) if enum.name == "Reason")
        for index, value in enumerate(file.enum_type[position].value):
            if value.number:
                declared = options.FromString(value.options.SerializeToString()).Extensions[extension]
                yield Reason(value.name.removeprefix(PREFIX), Code.Name(declared.code), _comment(file, position, index))


def _comment(file: FileDescriptorProto, enum: int, value: int) -> str:
    path = [
        FileDescriptorProto.ENUM_TYPE_FIELD_NUMBER,
        enum,
        EnumDescriptorProto.VALUE_FIELD_NUMBER,
        value,
    ]
    location = next(entry for entry in file.source_code_info.location if list(entry.path) == path)
    lines = location.leading_comments.strip().replace("\\", "\\\\").splitlines()
    return "\n    ".join(line.strip() for line in lines)
