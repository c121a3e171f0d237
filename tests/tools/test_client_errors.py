from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import EnumValueDescriptorProto, FileDescriptorSet

from client_errors import ERRORS, AmbiguousName, client_errors
from stubs import SOURCES, compile_image

Reason = Callable[[str], EnumValueDescriptorProto]


@pytest.fixture
def image(tmp_path: Path) -> FileDescriptorSet:
    return compile_image(SOURCES, tmp_path / "image")


@pytest.fixture
def reason(image: FileDescriptorSet) -> Reason:
    """One of the contract's, to be changed."""
    [errors] = [file for file in image.file if file.name == ERRORS]
    [enum] = [enum for enum in errors.enum_type if enum.name == "Reason"]
    return lambda name: next(value for value in enum.value if value.name == f"REASON_{name}")


def test_reason_is_a_class_below_that_of_its_code_with_its_comment(image: FileDescriptorSet) -> None:
    assert (
        "class TaskNotFound(NotFound):\n"
        '    """There is no such task, or it is not the caller\'s. `task_id` in the metadata."""\n\n'
        '    reason = "TASK_NOT_FOUND"\n'
    ) in client_errors(image)


def test_reason_that_is_new_needs_no_line_by_hand(image: FileDescriptorSet, reason: Reason) -> None:
    reason("TASK_NOT_FOUND").name = "REASON_NOTE_NOT_FOUND"
    assert "class NoteNotFound(NotFound):" in client_errors(image)
    assert '"NOTE_NOT_FOUND": NoteNotFound,' in client_errors(image)


def test_reason_that_is_named_like_its_code_is_the_class_of_that_code(image: FileDescriptorSet, reason: Reason) -> None:
    reason("TASK_NOT_FOUND").name = "REASON_NOT_FOUND"
    assert client_errors(image).count("class NotFound(") == 1
    assert '"NOT_FOUND": NotFound,' in client_errors(image)


def test_reason_that_is_named_like_another_code_is_refused(image: FileDescriptorSet, reason: Reason) -> None:
    reason("TASK_NOT_FOUND").name = "REASON_DATA_LOSS"
    with pytest.raises(AmbiguousName, match=r"REASON_DATA_LOSS .* is answered with NOT_FOUND"):
        client_errors(image)


def test_all_of_it_is_python(image: FileDescriptorSet) -> None:
    compile(client_errors(image), "errors.py", "exec")
