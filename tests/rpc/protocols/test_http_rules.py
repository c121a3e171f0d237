"""The rules of google.api.http: what the gateway refuses at start, and which rule a request's path matches."""

import re
from typing import Any

import pytest

from accord_rpc.contract import contract_services
from accord_rpc.protocols.rest.http_rules import http_rule_problems, http_rules, query_fields
from accord_rpc.protocols.rest.path_templates import Template, TemplateError, parameter_name
from accord_rpc.protocols.rest.router import Match, PathError, Router
from tests.rpc.protocols.routes import methods


def problems(*options: str, request: str = "Plain", **kind: Any) -> list[str]:
    found = http_rule_problems(methods(*options, request=request, **kind))
    return [re.sub(r"routes\d+\.Items\.", "", problem) for problem in found]


# --- templates ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "segments", "fields", "verb"),
    [
        ("/v1/items", ("v1", "items"), [], ""),
        ("/v1/items:batchGet", ("v1", "items"), [], "batchGet"),
        ("/v1/items/{item_id}", ("v1", "items", "*"), ["item_id"], ""),
        ("/v1/items/{item.id}:undelete", ("v1", "items", "*"), ["item.id"], "undelete"),
        ("/v1/{name=items/*}/parts", ("v1", "items", "*", "parts"), ["name"], ""),
        ("/v1/files/{path=**}", ("v1", "files", "**"), ["path"], ""),
    ],
)
def test_template_has_its_segments_variables_and_verb(
    text: str, segments: tuple[str, ...], fields: list[str], verb: str
) -> None:
    template = Template.parse(text)
    assert (template.segments, [variable.field for variable in template.variables]) == (segments, fields)
    assert template.verb == verb


@pytest.mark.parametrize(
    "text",
    [
        *("", "v1/items", "/", "/v1//items", "/v1/items/", "/v1/{item_id", "/v1/items}", "/v1/{Item}", "/v1/{}"),
        *("/v1/{a=}", "/v1/items:", "/v1/items:un-delete", "/v1/{a=**}/b", "/**", "/{a}/b", "/v1/../b", "/v1/a b"),
        *("/v1/{a}/{a}", "/v1/x{a}", "/v1/{a}{b}", "/v1/%41", "/v1/items?x=1"),
    ],
)
def test_template_outside_the_grammar_is_an_error(text: str) -> None:
    with pytest.raises(TemplateError):
        Template.parse(text)


def test_templates_of_one_shape_are_documented_with_one_name() -> None:
    assert Template.parse("/v1/items/{item.id}:move").documented == "/v1/items/{item_id}:move"
    assert parameter_name("member.account_id") == "account_id"
    assert parameter_name("item_id") == "item_id"


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("/v1/items/{item_id}", "/v1/items/{item.id}", True),
        ("/v1/items/{item_id}", "/v1/items/own", True),
        ("/v1/items/{item_id}", "/v1/items/{item_id}:move", False),
        ("/v1/items/{item_id}", "/v1/items", False),
        ("/v1/{a}/own", "/v1/items/{item_id}", True),
        ("/v1/{a}/own", "/v1/items/others", False),
        ("/v1/files/{path=**}", "/v1/files", True),
        ("/v1/files/{path=**}", "/v1/files/a/b/c", True),
        ("/v1/files/{path=**}", "/v1", False),
    ],
)
def test_templates_overlap_if_a_path_matches_both(one: str, other: str, overlap: bool) -> None:
    assert Template.parse(one).overlaps(Template.parse(other)) is overlap
    assert Template.parse(other).overlaps(Template.parse(one)) is overlap


# --- what the contract may declare ------------------------------------------------------------------------------------
def test_contract_has_a_route_or_an_exemption_for_every_method() -> None:
    declared = [method for service in contract_services() for method in service.methods]
    assert len(declared) > 50
    assert http_rule_problems(declared) == []


@pytest.mark.parametrize(
    ("options", "request_", "problem"),
    [
        ("", "Plain", "declares neither a route (google.api.http) nor why it has none (http_exempt)"),
        ('get: "v1"', "Plain", "does not begin with a slash"),
        ('custom: {kind: "HEAD" path: "/v1/items"}', "Plain", "has a kind other than"),
        ('get: "/v1/items/{id}"', "Plain", "has a variable id, which is not a single value of the request"),
        ('post: "/v1/items/{item}" body: "*"', "Call", "has a variable item, which is not a single value"),
        ('post: "/v1/items/{tags}" body: "*"', "Call", "has a variable tags, which is not a single value"),
        ('post: "/v1/items/{item.key}" body: "*"', "Call", "has the sensitive field item.key in its path"),
        ('get: "/v1/items"', "Call", "has the sensitive field item.key in its query"),
        ('get: "/v1/items"', "Listed", "has the field settings neither in its path nor in its body"),
        ('get: "/v1/items"', "Listed", "has the field items neither in its path nor in its body"),
        ('get: "/v1/items" body: "*"', "Plain", "has a body, which this HTTP method does not have"),
        ('delete: "/v1/items" body: "*"', "Plain", "has a body, which this HTTP method does not have"),
        ('patch: "/v1/items" body: "thing"', "Call", "has the body thing, which is not a single message"),
        ('post: "/v1/items" body: "items"', "Listed", "has the body items, which is not a single message"),
        ('get: "/v1/items" response_body: "x"', "Plain", "has the response_body x, which is not a field"),
    ],
)
def test_wrong_rule_is_a_problem(options: str, request_: str, problem: str) -> None:
    assert any(problem in found for found in problems(options, request=request_))


def test_exempt_method_needs_no_route_and_must_not_have_one() -> None:
    exempt = '[accord.policy.v1.http_exempt]: "It streams its requests."'
    assert problems(exempt, streams_requests=True) == []
    assert problems(f'{exempt} [google.api.http] {{ post: "/v1/items" }}') == [
        "Call0: declares a route, yet also why it has none (http_exempt)"
    ]


def test_method_that_streams_its_requests_has_no_route() -> None:
    found = problems('post: "/v1/items" body: "*"', streams_requests=True)
    assert found == ["Call0: streams its requests, which REST cannot carry, and so must declare http_exempt"]


def test_get_of_a_method_with_side_effects_is_a_problem() -> None:
    found = problems('[google.api.http] { get: "/v1/items" }')
    assert found == [
        "Call0: its route GET /v1/items is a GET, which clients and proxies repeat, yet the method is not NO_SIDE_EFFECTS"
    ]


def test_stream_of_messages_that_look_like_its_error_is_a_problem() -> None:
    assert problems('post: "/v1/items"', response="Failed") == []
    assert problems('post: "/v1/items"', response="Failed", streams=True) == [
        "Call0: streams messages with a field error, which could be mistaken for the status that ends a stream"
    ]


def test_routes_that_match_the_same_path_are_ambiguous() -> None:
    found = problems('get: "/v1/items/{item_id}"', 'get: "/v1/items/own"', 'delete: "/v1/items/{item_id}"')
    assert found == ["Call1: its route GET /v1/items/own matches the same paths as GET /v1/items/{item_id} of Call0"]


def test_additional_binding_is_checked_like_the_main_one() -> None:
    found = problems('get: "/v1/items" additional_bindings { get: "/v1/items" }')
    assert found == ["Call0: its route GET /v1/items matches the same paths as GET /v1/items of Call0"]


def test_parameters_of_one_path_have_one_name() -> None:
    found = problems(
        'post: "/v1/items/{item_id}" body: "*"', 'patch: "/v1/items/{item.name}" body: "*"', request="Call"
    )
    assert found == [
        "Call1: its route PATCH /v1/items/{item.name} has other names than POST /v1/items/{item_id} of Call0"
    ]


def test_query_holds_what_neither_path_nor_body_has() -> None:
    (patch,) = methods('patch: "/v1/items/{item.id}" body: "item"', request="Call")
    assert [leaf.path for leaf in query_fields(*http_rules(patch))] == ["item_id", "tags", "update_mask"]
    (post,) = methods('post: "/v1/items/{item_id}"', request="Call")
    assert [leaf.json_path for leaf in query_fields(*http_rules(post))] == [
        *("item.id", "item.name", "item.key", "tags", "updateMask")
    ]


# --- which rule a path matches ----------------------------------------------------------------------------------------
ROUTES = (
    'get: "/v1/items"',
    'post: "/v1/items" body: "*"',
    'get: "/v1/items:batchGet"',
    'get: "/v1/items/{item_id}"',
    'patch: "/v1/items/{item_id}" body: "*"',
    'post: "/v1/items/{item_id}:move" body: "*"',
    'post: "/v1/items/new" body: "*"',
    'get: "/v1/files/{item_id=**}"',
    'get: "/v1/{item_id=parts/*}/pieces"',
)


@pytest.fixture(scope="module")
def router() -> Router:
    declared = methods(*ROUTES)
    assert http_rule_problems(declared) == []
    return Router(rule for method in declared for rule in http_rules(method))


@pytest.mark.parametrize(
    ("verb", "path", "route", "values"),
    [
        ("GET", "/v1/items", "GET /v1/items", []),
        ("GET", "/v1/%69tems", "GET /v1/items", []),
        ("POST", "/v1/items", "POST /v1/items", []),
        ("GET", "/v1/items:batchGet", "GET /v1/items:batchGet", []),
        ("GET", "/v1/items/a%20b%2525", "GET /v1/items/{item_id}", ["a b%25"]),
        ("GET", "/v1/items/%C3%BC", "GET /v1/items/{item_id}", ["ü"]),
        ("GET", "/v1/items/new", "GET /v1/items/{item_id}", ["new"]),
        ("POST", "/v1/items/new", "POST /v1/items/new", []),
        ("PATCH", "/v1/items/new", "PATCH /v1/items/{item_id}", ["new"]),
        ("POST", "/v1/items/a:move", "POST /v1/items/{item_id}:move", ["a"]),
        ("GET", "/v1/items/a%3Amove", "GET /v1/items/{item_id}", ["a:move"]),
        ("GET", "/v1/items/urn:isbn", "GET /v1/items/{item_id}", ["urn:isbn"]),
        ("GET", "/v1/files/a/b%20c", "GET /v1/files/{item_id=**}", ["a/b c"]),
        ("GET", "/v1/files", "GET /v1/files/{item_id=**}", [""]),
        ("GET", "/v1/parts/7/pieces", "GET /v1/{item_id=parts/*}/pieces", ["parts/7"]),
    ],
)
def test_path_matches_its_rule(router: Router, verb: str, path: str, route: str, values: list[str]) -> None:
    found = router.find(verb, path)
    assert isinstance(found, Match)
    assert (str(found.rule), list(found.values)) == (route, values)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/items", {"GET", "POST"}),
        ("/v1/items/a", {"GET", "PATCH"}),
        ("/v1/items/new", {"GET", "PATCH", "POST"}),
        ("/v1/items/a:move", {"POST"}),
    ],
)
def test_path_without_the_http_method_returns_those_it_has(router: Router, path: str, allowed: set[str]) -> None:
    assert router.find("DELETE", path) == frozenset(allowed)


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/v1", "/v1/", "/v1/items/", "/v1//items", "//v1/items", "/V1/items", "/v1/items/a/", "/v1/files//a"),
        *("/v1/items/a/b", "/v1/items:Move", "/v1/items/a:mov", "*", "", "http://x/v1/items"),
    ],
)
def test_other_path_is_unknown(router: Router, path: str) -> None:
    assert router.find("POST", path) == frozenset()


@pytest.mark.parametrize("segment", ["a%2Fb", "a%2fb", "..", ".", "%2e%2E", ".%2e", "%ff", "%C3", "%", "%4", "%zz"])
def test_segment_that_proxies_read_differently_is_refused(router: Router, segment: str) -> None:
    with pytest.raises(PathError):
        router.find("GET", f"/v1/items/{segment}")
    with pytest.raises(PathError):
        router.find("GET", f"/v1/files/{segment}/b")


@pytest.mark.parametrize("value", ["..", "%2e", "a%2Fb", "%ff"])
def test_value_before_a_custom_verb_is_refused_alike(router: Router, value: str) -> None:
    with pytest.raises(PathError):
        router.find("POST", f"/v1/items/{value}:move")
