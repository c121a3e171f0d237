"""The generator of the client's exceptions."""

from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import pytest
from google.protobuf.descriptor_pb2 import EnumValueDescriptorProto, FileDescriptorSet

from client_errors import FILES, AmbiguousName, client_errors
from stubs import SOURCES, compile_image

Reason = Callable[[str], EnumValueDescriptorProto]


@pytest.fixture
def image(tmp_path: Path) -> FileDescriptorSet:
    return compile_image(SOURCES, tmp_path / "image")


@pytest.fixture
def reason(image: FileDescriptorSet) -> Reason:
    """Returns a reason of Accord, which the test can change."""
    [errors] = [file for file in image.file if file.name == FILES[0]]
    [enum] = [enum for enum in errors.enum_type if enum.name == "Reason"]
    return lambda name: next(value for value in enum.value if value.name == f"REASON_{name}")


def test_reason_is_a_subclass_of_its_code_and_has_its_comment(image: FileDescriptorSet) -> None:
    assert (
        "class TaskNotFound(NotFound):\n"
        '    """The task does not exist or belongs to another owner. Metadata: `task_id`."""\n\n'
        '    reason = "TASK_NOT_FOUND"\n'
    ) in client_errors(image)


def test_new_reason_is_a_class(image: FileDescriptorSet, reason: Reason) -> None:
    reason("TASK_NOT_FOUND").name = "REASON_NOTE_NOT_FOUND"
    assert "class NoteNotFound(NotFound):" in client_errors(image)
    assert '"NOTE_NOT_FOUND": NoteNotFound,' in client_errors(image)


def test_reason_with_the_name_of_its_code_is_the_class_of_the_code(image: FileDescriptorSet, reason: Reason) -> None:
    reason("TASK_NOT_FOUND").name = "REASON_NOT_FOUND"
    assert client_errors(image).count("class NotFound(") == 1
    assert '"NOT_FOUND": NotFound,' in client_errors(image)


def test_reason_with_the_name_of_another_code_is_an_error(image: FileDescriptorSet, reason: Reason) -> None:
    reason("TASK_NOT_FOUND").name = "REASON_DATA_LOSS"
    with pytest.raises(AmbiguousName, match=r"REASON_DATA_LOSS has the name of a status code"):
        client_errors(image)


def add_to_application(tmp_path: Path, name: str) -> FileDescriptorSet:
    """The image of a contract whose application has a reason with this name."""
    sources = tmp_path / "proto"
    copytree(SOURCES, sources)
    file = sources / FILES[1]
    option = '[(accord.errors.v1.answer) = {code: NOT_FOUND message: "The note does not exist."}]'
    comment = "// The note does not exist."
    file.write_text(f"{file.read_text().rstrip().removesuffix('}')}\n{comment}\n{name} = 900000 {option};\n}}\n")
    return compile_image(sources, tmp_path / "image")


def test_reason_of_the_application_is_a_class(tmp_path: Path) -> None:
    generated = client_errors(add_to_application(tmp_path, "REASON_NOTE_NOT_FOUND"))
    declared = 'class NoteNotFound(NotFound):\n    """The note does not exist."""\n\n    reason = "NOTE_NOT_FOUND"\n'
    assert declared in generated
    assert '"NOTE_NOT_FOUND": NoteNotFound,' in generated
    assert "class TaskNotFound(NotFound):" in generated


def test_reason_of_the_application_with_the_name_of_a_reason_of_accord_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AmbiguousName, match="REASON_TASK_NOT_FOUND: Accord and the application have a reason"):
        client_errors(add_to_application(tmp_path, "REASON_TASK_NOT_FOUND"))


def test_generated_module_compiles(image: FileDescriptorSet) -> None:
    compile(client_errors(image), "errors.py", "exec")
