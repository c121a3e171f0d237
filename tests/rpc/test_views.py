"""What the gateway refuses at start about views."""

from typing import Any

from accord_db.engine.model import Model
from accord_rpc.policy import Method
from accord_rpc.views import view_problems
from tests.rpc.things import Thing, pb

RESOURCES: Any = {pb.Thing: Thing}


def reading(name: str, request: Any, response: Any) -> Any:
    """A method, as far as its messages matter."""
    made = object.__new__(Method)
    for attribute, value in (("name", name), ("request", request), ("response", response)):
        object.__setattr__(made, attribute, value)
    return made


def problems(name: str, request: Any, response: Any, resources: Any = RESOURCES) -> list[str]:
    return list(view_problems([reading(name, request, response)], resources))


def test_method_that_reads_a_resource_with_views_must_let_the_caller_choose() -> None:
    assert problems("ListThings", pb.ListThingsRequest, pb.ListThingsResponse) == []
    [problem] = problems("GetThing", pb.CreateThingRequest, pb.GetThingResponse)
    assert problem.startswith("things.v1.CreateThingRequest: document is only in the view FULL")
    assert problems("CreateThing", pb.CreateThingRequest, pb.CreateThingResponse) == []


def test_view_of_a_resource_without_views_is_refused() -> None:
    without: dict[Any, type[Model]] = {}
    [problem] = problems("GetThing", pb.GetThingRequest, pb.GetThingResponse, without)
    assert "view has no effect" in problem
