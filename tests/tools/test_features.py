"""Which tests concern a feature."""

from pathlib import Path

import pytest

from features import Feature, feature_names, unknown_features

ROOT = Path(__file__).resolve().parents[2]


def test_features_are_the_packages_with_methods_and_the_modules_of_queries() -> None:
    names = feature_names()
    assert {"tasks", "admin", "outbox"} <= set(names)
    assert not {"errors", "policy", "__init__"} & set(names)
    assert all(unknown_features([name]) is None for name in names)


def test_unknown_feature_is_reported_with_those_that_exist() -> None:
    error = unknown_features(["tasks", "taskz", "x"])
    assert error is not None
    assert error.startswith("No such feature: taskz, x. The features are: ")
    assert ", tasks" in error


@pytest.mark.parametrize(
    ("file", "test", "case"),
    [
        ("test_tasks.py", "test_anything", ""),
        ("test_task_lists.py", "test_anything", ""),
        ("test_wire.py", "test_create_task_of_another_owner", ""),
        ("test_wire.py", "test_list_of_tasks", ""),
        ("test_hostile.py", "test_messages", "GetTask]"),
        ("test_foreign_ids.py", "test_ids", "UpdateTask.task.id in an organization]"),
        ("test_row_level_security.py", "test_rows", "tasks]"),
        ("test_hostile.py", "test_large_messages", "accord.tasks.v1.TaskService]"),
    ],
)
def test_feature_concerns(file: str, test: str, case: str) -> None:
    assert Feature("tasks").concerns(file, test, case)


@pytest.mark.parametrize(
    ("file", "test", "case"),
    [
        ("test_members.py", "test_anything", ""),
        ("test_multitasking.py", "test_multitasking", ""),
        ("test_hostile.py", "test_messages", "GetTaskList]"),
        ("test_wire.py", "test_asyncio_taskgroup", ""),
    ],
)
def test_feature_does_not_concern(file: str, test: str, case: str) -> None:
    assert not Feature("tasks").concerns(file, test, case)


def test_methods_of_a_feature_are_those_of_its_services() -> None:
    assert {"CreateTask", "GetTask", "ListTasks"} <= set(Feature("tasks").methods)
    assert Feature("outbox").methods == ()
