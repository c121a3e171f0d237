"""The comments of the proto files. Descriptors at run time have none, so they come from protoc's image."""

import re
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

_Path: TypeAlias = tuple[int, ...]
"""Of a `SourceCodeInfo.Location`: field numbers and indexes, in turn."""

_FILE: Final = FileDescriptorProto
_LINE_BREAK: Final = re.compile(r"[ \t]*\n[ \t]*")


class Comments:
    """Texts by the full name of what they describe: `accord.tasks.v1.Task.title`. A paragraph is one line."""

    def __init__(self, image: FileDescriptorSet) -> None:
        self._texts = {name: text for file in image.file for name, text in _texts(file)}

    def of(self, name: str) -> str:
        """Empty if there is none."""
        return self._texts.get(name, "")


def _texts(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    names = dict(_names(file))
    for location in file.source_code_info.location:
        if location.leading_comments and (name := names.get(tuple(location.path))):
            yield name, _paragraphs(location.leading_comments)


def _paragraphs(comment: str) -> str:
    return "\n\n".join(_LINE_BREAK.sub(" ", paragraph.strip()) for paragraph in re.split(r"\n\s*\n", comment.strip()))


def _names(file: FileDescriptorProto) -> Iterator[tuple[_Path, str]]:
    above = f"{file.package}."
    yield from _in_messages(file.message_type, (_FILE.MESSAGE_TYPE_FIELD_NUMBER,), above)
    yield from _in_enums(file.enum_type, (_FILE.ENUM_TYPE_FIELD_NUMBER,), above)
    yield from _in_services(file.service, (_FILE.SERVICE_FIELD_NUMBER,), above)


def _in_messages(messages: Sequence[DescriptorProto], path: _Path, above: str) -> Iterator[tuple[_Path, str]]:
    for index, message in enumerate(messages):
        here, name = (*path, index), above + message.name
        yield here, name
        for number, field in enumerate(message.field):
            yield (*here, DescriptorProto.FIELD_FIELD_NUMBER, number), f"{name}.{field.name}"
        yield from _in_messages(message.nested_type, (*here, DescriptorProto.NESTED_TYPE_FIELD_NUMBER), f"{name}.")
        yield from _in_enums(message.enum_type, (*here, DescriptorProto.ENUM_TYPE_FIELD_NUMBER), f"{name}.")


def _in_enums(enums: Sequence[EnumDescriptorProto], path: _Path, above: str) -> Iterator[tuple[_Path, str]]:
    for index, enum in enumerate(enums):
        here, name = (*path, index), above + enum.name
        yield here, name
        for number, value in enumerate(enum.value):
            yield (*here, EnumDescriptorProto.VALUE_FIELD_NUMBER, number), f"{name}.{value.name}"


def _in_services(services: Sequence[ServiceDescriptorProto], path: _Path, above: str) -> Iterator[tuple[_Path, str]]:
    for index, service in enumerate(services):
        here, name = (*path, index), above + service.name
        yield here, name
        for number, method in enumerate(service.method):
            yield (*here, ServiceDescriptorProto.METHOD_FIELD_NUMBER, number), f"{name}.{method.name}"
