"""REST requests as messages: where fields come from, and everything that is refused, by the path of its field."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from accord_rpc.errors import FieldViolation, RpcError
from accord_rpc.protocols.rest.binding import Binding, HeaderValue
from accord_rpc.protocols.rest.http_rules import http_rules
from tests.rpc.things import pb

ID = "0198f7f0-0000-7000-8000-000000000001"
OTHER = "0198f7f0-0000-7000-8000-000000000002"
METHODS = pb.DESCRIPTOR.services_by_name["ThingService"].methods_by_name
MESSAGES = {name: getattr(pb, f"{name}Request") for name in METHODS}


def bound(
    method: str, values: Sequence[str] = (), query: str = "", body: str = "", *headers: HeaderValue
) -> dict[str, Any]:
    """The message, with the names of the contract and without defaults."""
    (rule,) = http_rules(METHODS[method])
    binary = Binding(rule).read(values, query, body.encode(), headers)
    return MessageToDict(MESSAGES[method].FromString(binary), preserving_proto_field_name=True)


def refused(call: Callable[[], object]) -> dict[str, str]:
    with pytest.raises(RpcError) as raised:
        call()
    return {violation.field: violation.description for violation in raised.value.violations}


# --- path and query ---------------------------------------------------------------------------------------------------
def test_path_sets_its_field() -> None:
    assert bound("GetThing", [ID]) == {"thing_id": ID}


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("page_size=5", {"page_size": 5}),
        ("pageSize=5", {"page_size": 5}),
        ("page%5fsize=%35", {"page_size": 5}),
        ("name_contains=a+b%2Bc%26", {"name_contains": "a b+c&"}),
        ("name_contains=", {}),
        ("name_contains=a=b", {"name_contains": "a=b"}),
        ("active=true", {"active": True}),
        ("active=false", {"active": False}),
        ("state=STATE_IN_USE", {"state": "STATE_IN_USE"}),
        ("state=2", {"state": "STATE_IN_USE"}),
        ("states=STATE_NEW&states=STATE_IN_USE", {"states": ["STATE_NEW", "STATE_IN_USE"]}),
        ("seenFrom=2026-01-31T12:00:00Z", {"seen_from": "2026-01-31T12:00:00Z"}),
        ("tag=%F0%9F%90%A6", {"tag": "🐦"}),
    ],
)
def test_query_sets_fields_by_either_name(query: str, fields: dict[str, Any]) -> None:
    assert bound("ListThings", [], query) == fields


@pytest.mark.parametrize(
    ("query", "path", "problem"),
    [
        ("colour=red", "colour", "is not a parameter"),
        ("page_size=5&page_size=5", "page_size", "must be given once"),
        ("page_size=5&pageSize=5", "page_size", "must be given once"),
        ("page_size=", "page_size", "must be an integer"),
        ("page_size=five", "page_size", "must be an integer"),
        ("page_size=99999999999", "page_size", "must be an integer"),
        ("page_size=5.5", "page_size", "must be an integer"),
        ("active=yes", "active", "must be true or false"),
        ("active=1", "active", "must be true or false"),
        ("state=IN_USE", "state", "must be one of"),
        ("seen_from=yesterday", "seen_from", "must be an RFC 3339 time"),
        ("tag=%ff", "tag", "must be percent-encoded UTF-8"),
        ("tag=%zz", "tag", "must be percent-encoded UTF-8"),
        ("%ff=1", "query", "has a parameter"),
        ("<script>=1", "query", "has a parameter"),
        ("&page_size=1", "query", "has a parameter"),
    ],
)
def test_wrong_parameter_is_refused_by_its_path(query: str, path: str, problem: str) -> None:
    found = refused(lambda: bound("ListThings", [], query))
    assert found.keys() == {path}
    assert problem in found[path]


def test_all_problems_are_reported_at_once_without_values() -> None:
    found = refused(lambda: bound("ListThings", [], "page_size=secret&colour=secret&active=secret", "secret"))
    assert found.keys() == {"", "page_size", "colour", "active"}
    assert "secret" not in str(found)


def test_parameter_of_the_path_is_refused_in_the_query() -> None:
    assert refused(lambda: bound("GetThing", [ID], f"thing_id={ID}")) == {
        "thing_id": "belongs in the path, not in the query"
    }


def test_body_is_refused_where_none_belongs() -> None:
    assert refused(lambda: bound("GetThing", [ID], "", "{}")) == {"": "this method takes no body"}


# --- body -------------------------------------------------------------------------------------------------------------
def test_body_is_the_whole_request() -> None:
    assert bound("CreateThing", [], "", '{"name": "a", "large": 1}') == {"name": "a", "large": 1}


def test_missing_body_is_an_empty_object() -> None:
    assert bound("CreateThing") == {}


def test_query_is_refused_where_the_body_is_the_request() -> None:
    found = refused(lambda: bound("CreateThing", [], "name=a", "{}"))
    assert found == {"name": "is not a parameter: this method takes its fields from the body"}


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ("{", ""),
        ("[]", ""),
        ('{"nam": "a"}', "nam"),
        ('{"name": "a", "name": "b"}', "name"),
        ('{"ownerKey": "a", "owner_key": "a"}', "owner_key"),
        ('{"name": 1}', "name"),
        ('{"tags": "a"}', "tags"),
        ('{"tags": ["a", 1]}', "tags[1]"),
        ('{"city": "a", "room": 1}', "city"),
    ],
)
def test_wrong_body_is_refused_by_the_path_of_the_field(body: str, path: str) -> None:
    assert refused(lambda: bound("CreateThing", [], "", body)).keys() == {path}


def test_problems_of_body_and_query_are_reported_together() -> None:
    found = refused(lambda: bound("UpdateThing", [ID], "colour=red", '{"small": "x", "odd": 1}'))
    assert found.keys() == {"colour", "thing.small", "thing.odd"}
    assert refused(lambda: bound("UpdateThing", [ID], "colour=red", "{")).keys() == {"", "colour"}


def test_value_in_the_path_that_contradicts_the_body_is_refused() -> None:
    assert bound("UpdateThing", [ID], "", f'{{"id": "{ID}"}}')["thing"] == {"id": ID}
    found = refused(lambda: bound("UpdateThing", [ID], "", f'{{"id": "{OTHER}"}}'))
    assert found == {"thing.id": "must be the value in the path, or be left out"}


# --- masks ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "mask"),
    [
        ('{"name": "a", "active": false}', "name,active"),
        ('{"description": null, "ownerKey": "a", "tags": []}', "description,owner_key,tags"),
        (f'{{"id": "{ID}", "etag": "{OTHER}", "name": "a"}}', "name"),
        ('{"createdAt": "2026-01-31T12:00:00Z", "name": "a"}', "name"),
        ("{}", ""),
        ("", ""),
    ],
)
def test_patch_without_a_mask_changes_the_fields_that_were_sent(body: str, mask: str) -> None:
    found = bound("UpdateThing", [ID], "", body)
    assert found.get("update_mask", "").replace("ownerKey", "owner_key") == mask


@pytest.mark.parametrize("query", ["update_mask=name,owner_key", "updateMask=name%2CownerKey"])
def test_mask_in_the_query_is_kept(query: str) -> None:
    assert bound("UpdateThing", [ID], query, '{"small": 1}')["update_mask"] == "name,ownerKey"


# --- headers ----------------------------------------------------------------------------------------------------------
def test_header_sets_its_field() -> None:
    header = HeaderValue("if-match", "thing.etag", OTHER)
    assert bound("UpdateThing", [ID], "", "{}", header)["thing"] == {"id": ID, "etag": OTHER}
    assert bound("UpdateThing", [ID], "", f'{{"etag": "{OTHER}"}}', header)["thing"]["etag"] == OTHER


def test_header_that_contradicts_the_body_is_refused() -> None:
    header = HeaderValue("if-match", "thing.etag", ID)
    found = refused(lambda: bound("UpdateThing", [ID], "", f'{{"etag": "{OTHER}"}}', header))
    assert found == {"thing.etag": "must be the value in the header if-match, or be left out"}


def test_problems_found_earlier_are_reported_too() -> None:
    (rule,) = http_rules(METHODS["GetThing"])
    earlier = FieldViolation("grpc-timeout", "must be a number and a unit")
    found = refused(lambda: Binding(rule).read([ID], "x=1", b"", (), earlier))
    assert found.keys() == {"grpc-timeout", "x"}
