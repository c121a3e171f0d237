"""Operations of methods that the contract does not have: streams, several routes, parts of responses."""

from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from accord_rpc.openapi.document import openapi
from tests.rpc.protocols.routes import methods


def paths_of(*options: str, **kinds: Any) -> Any:
    service = methods(*options, **kinds)[0].containing_service
    return openapi([service], FileDescriptorSet())["paths"]


def test_stream_is_json_lines_or_events() -> None:
    paths = paths_of('get: "/v1/items"', streams=True)
    assert set(paths["/v1/items"]["get"]["responses"]["200"]["content"]) == {
        "application/x-ndjson",
        "text/event-stream",
    }


def test_every_binding_is_an_operation_with_an_id_of_its_own() -> None:
    option = 'get: "/v1/items/{item_id}" additional_bindings { get: "/v1/parents/{item_id}:item" }'
    paths = paths_of(option)
    ids = [paths[path]["get"]["operationId"] for path in ("/v1/items/{item_id}", "/v1/parents/{item_id}:item")]
    assert ids == ["Items_Call0", "Items_Call0_2"]


def test_response_can_be_a_field_of_the_message() -> None:
    paths = paths_of('get: "/v1/items" response_body: "items"', response="Listed")
    schema = paths["/v1/items"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema["type"] == "array"
    assert schema["items"]["$ref"].endswith(".Item")


def test_names_of_nested_fields_are_those_of_the_path() -> None:
    paths = paths_of('patch: "/v1/items/{item.id}" body: "item"', request="Call")
    names = {each["name"]: each["in"] for each in paths["/v1/items/{item_id}"]["patch"]["parameters"]}
    assert names == {"item_id": "path", "itemId": "query", "tags": "query", "updateMask": "query"}


def test_list_in_a_query_can_be_too_long() -> None:
    paths = paths_of('get: "/v1/calls" ', request="Call")
    assert (
        "414" in paths_of('post: "/v1/calls:call" body: "item"', request="Call")["/v1/calls:call"]["post"]["responses"]
    )
    assert paths == {}  # a query cannot hold a sensitive field of `item`


def test_method_with_a_wrong_route_or_none_is_left_out() -> None:
    assert paths_of('get: "items"', "", 'get: "/v1/items/{nothing}"') == {}


def test_stream_of_requests_is_left_out() -> None:
    assert paths_of('[accord.policy.v1.http_exempt]: "a stream of requests"', streams_requests=True) == {}
