"""Holds responses of REST against the OpenAPI document, and records which documented errors were produced."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

import jsonschema_rs

from accord.errors.v1 import errors_pb2
from accord.errors.v1.errors_pb2 import Reason
from tests.api.web import Response

Json = dict[str, Any]

DOCUMENT: Final[Json] = json.loads((files("accord") / "openapi.json").read_text())
UNKNOWN: Final = "METHOD_UNKNOWN"  # of paths that the document does not have
SUCCESS: Final = "success"
NOT_PRODUCED: Final = {
    "ORGANIZATION_NOT_FOUND": "another call deletes the organization, or ends the membership, after access was decided",
}
"""Reasons that a test of one call at a time cannot produce for each operation, and why."""
_TARGET_TOO_LONG: Final = 414  # the server refuses it before it knows the operation
_HERE: Final = "urn:accord:openapi"
_REGISTRY: Final = jsonschema_rs.Registry([(_HERE, {"components": DOCUMENT["components"]})])

produced: Final = set[tuple[str, str]]()
"""Pairs of operation and reason, or of operation and SUCCESS, by this process."""


@cache
def operations() -> Mapping[str, Json]:
    """By `operationId`: `TaskService_GetTask`."""
    found = [each for path in DOCUMENT["paths"].values() for verb, each in path.items() if isinstance(each, dict)]
    return {each["operationId"]: each for each in found if "operationId" in each}


def documented_reasons(operation: str) -> set[tuple[int, str]]:
    """The status and the reason of each error."""
    return set(_reasons(operation))


def _reasons(operation: str) -> Iterator[tuple[int, str]]:
    for status, response in operations()[operation]["responses"].items():
        for content in _resolved(response).get("content", {}).values():
            yield from ((int(status), reason) for reason in content.get("examples", ()))


def check(operation: str, response: Response) -> None:
    """Status, type, headers and body of the response."""
    if response.status == _TARGET_TOO_LONG:
        return
    reason = _reason(response)
    if reason == UNKNOWN:
        return
    responses = operations()[operation]["responses"]
    assert str(response.status) in responses, f"{operation}: the status {response.status} is not documented"
    expected = _resolved(responses[str(response.status)])
    for name, header in expected.get("headers", {}).items():
        required = _resolved(header).get("required")
        assert response.header(name.lower()) is not None or not required, f"{operation}: {name} is missing"
    content = expected.get("content", {})
    kind = (response.header("content-type") or "").partition(";")[0]
    assert kind in content or not content, f"{operation}: {kind} is not documented"
    if kind == "application/json" and content:
        violations = [str(each) for each in _validator(operation, response.status).iter_errors(response.json)]
        assert violations == [], f"{operation}, {response.status}: {violations}"
    if reason:
        assert (response.status, reason) in documented_reasons(operation), f"{operation}: {reason} is not documented"
    produced.add((operation, reason or SUCCESS))


def pipeline_reasons() -> set[str]:
    """Those that no policy declares."""
    return {
        value.name.removeprefix("REASON_")
        for value in Reason.DESCRIPTOR.values
        if value.GetOptions().Extensions[errors_pb2.answer].pipeline
    }


def missing() -> dict[str, list[str]]:
    """Successes and declared reasons that were not produced, by operation, except those of `NOT_PRODUCED`. The pipeline returns the
    other reasons for all operations alike."""
    others = pipeline_reasons() | NOT_PRODUCED.keys()
    expected = {name: {reason for _, reason in documented_reasons(name)} - others | {SUCCESS} for name in operations()}
    left = {
        name: sorted(reasons - {reason for by, reason in produced if by == name}) for name, reasons in expected.items()
    }
    return {name: reasons for name, reasons in left.items() if reasons}


def _reason(response: Response) -> str:
    """Empty for a response that is no error."""
    return response.reason if response.status >= 400 else ""


@cache
def _validator(operation: str, status: int) -> jsonschema_rs.Validator:
    schema = _resolved(operations()[operation]["responses"][str(status)])["content"]["application/json"]["schema"]
    text = json.dumps(schema).replace('"#/', f'"{_HERE}#/')
    return jsonschema_rs.validator_for(json.loads(text), registry=_REGISTRY, validate_formats=True, offline=True)


def _resolved(value: Json) -> Json:
    if "$ref" not in value:
        return value
    found: Any = DOCUMENT
    for name in value["$ref"].removeprefix("#/").split("/"):
        found = found[name.replace("~1", "/").replace("~0", "~")]
    return _resolved(found)
