"""The generator of hostile JSON and URLs: what it must contain."""

import json
from collections.abc import Callable
from typing import Final

import pytest
from google.protobuf.descriptor import MethodDescriptor
from hypothesis import HealthCheck, Phase, given, settings

from accord.tasks.v1 import tasks_pb2
from tests.api.faces import CONNECT_JSON, REST, Face, Request
from tests.api.hostile_json import OTHER_TYPES, PARAMETERS, SEGMENTS, Raw, hostile_requests

METHODS: Final = tasks_pb2.DESCRIPTOR.services_by_name["TaskService"].methods_by_name
KNOWN: Final = ("10000000-0000-4000-8000-000000000000", "ada@example.com")


def requests_of(face: Face, method: MethodDescriptor) -> list[Request]:
    found: list[Request] = []

    @settings(
        max_examples=300,
        database=None,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(hostile_requests(face, method, KNOWN))
    def collect(request: Request) -> None:
        found.append(request)

    collect()
    return found


@pytest.fixture(scope="module")
def bodies() -> list[bytes]:
    return [request.body or b"" for request in requests_of(CONNECT_JSON, METHODS["CreateTask"])]


def repeats_a_name(text: bytes) -> bool:
    repeated = False

    def pairs(found: list[tuple[str, object]]) -> dict[str, object]:
        nonlocal repeated
        repeated |= len(dict(found)) < len(found)
        return dict(found)

    try:
        json.loads(text, object_pairs_hook=pairs)
    except (ValueError, RecursionError):
        return False
    return repeated


def is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


RAW: Final = [each for each in OTHER_TYPES if isinstance(each, Raw) and each]
DEFECTS: Final[dict[str, Callable[[bytes], bool]]] = {
    "a repeated name": repeats_a_name,
    "an unknown name": lambda text: b'"unknown"' in text or b'"__proto__"' in text,
    "what is not JSON": lambda text: not is_json(text),
    "a number, a text or a nesting that parsers read differently": lambda text: any(
        bytes(each) in text for each in RAW
    ),
    "another type": lambda text: is_json(text) and not isinstance(json.loads(text), dict),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_some_documents_have_each_defect(bodies: list[bytes], defect: str) -> None:
    assert any(map(DEFECTS[defect], bodies))


def test_most_documents_can_be_read(bodies: list[bytes]) -> None:
    assert sum(map(is_json, bodies)) > len(bodies) / 2


def test_urls_have_unknown_and_repeated_parameters_and_broken_escapes() -> None:
    targets = [request.target for request in requests_of(REST, METHODS["ListTasks"])]
    found = {parameter for parameter in PARAMETERS if any(target.endswith(parameter) for target in targets)}
    assert len(found) > len(PARAMETERS) / 2
    assert sum(not target.endswith(PARAMETERS) for target in targets) > len(targets) / 2


def test_paths_have_segments_that_proxies_read_differently() -> None:
    paths = [request.target.partition("?")[0] for request in requests_of(REST, METHODS["UndeleteTask"])]
    hostile = {f"/v1/tasks/{segment}:undelete" for segment in SEGMENTS}
    assert len(hostile & set(paths)) > 3
    assert sum(path not in hostile for path in paths) > len(paths) / 2
