"""What the gateway refuses at start about views and expanded references."""

from typing import Any

import pytest

from accord_db.engine.model import Model
from accord_rpc.expansions import Expansion, expansion_problems
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


def test_request_admits_exactly_the_references_that_can_be_expanded() -> None:
    assert list(expansion_problems([reading("GetThing", pb.GetThingRequest, pb.GetThingResponse)])) == []
    [problem] = expansion_problems([reading("GetThing", pb.GetThingRequest, pb.CreateThingRequest)])
    assert problem == "things.v1.GetThingRequest.expand: admits ['parent'], and the references are []"


@pytest.mark.parametrize(
    ("name", "problem"), [("owner", "there is no such field"), ("settings", "declare which method returns it")]
)
def test_reference_that_the_contract_does_not_declare_is_refused(name: str, problem: str) -> None:
    with pytest.raises(TypeError, match=problem):
        Expansion(pb.Thing, name)
