"""REST over a real socket: routes, strictness, versions, retries, errors and streams."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.descriptor import MethodDescriptor

from accord.policy.v1.policy_pb2 import ACCESS_PUBLIC
from accord_db.engine.database import Database
from accord_db.engine.listen import Listener
from accord_gateway.server.gateway import Gateway
from accord_gateway.settings import Settings
from accord_rpc.contract import contract_services
from accord_rpc.pipeline.rate_limits import rate_limiter
from accord_rpc.policy import effective_policy
from accord_rpc.protocols.framing import INCOMPLETE
from accord_rpc.protocols.rest import calls as rest_calls
from accord_rpc.protocols.rest.http_rules import HttpRule, http_rules
from tests.api import probe as probes
from tests.api.conftest import Client
from tests.api.web import Response, chunks, fetch, read_head, sent
from tests.factories import Person, signed_in_person

ACCORD = Settings(port=0, metrics_port=0, server="accord")
AN_ID = "0198f7f0-0000-7000-8000-000000000001"
ANOTHER_ID = "0198f7f0-0000-7000-8000-000000000002"


@pytest.fixture
def gateway_settings() -> Settings:
    return ACCORD


@dataclass(frozen=True)
class Rest:
    """Calls of one person."""

    address: str
    headers: dict[str, str]

    async def __call__(self, method: str, target: str, body: object = None, **headers: str) -> Response:
        """Names of headers with underscores instead of hyphens."""
        own = self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        return await fetch(self.address, method, target, body, own)


@pytest.fixture
async def call(client: Client, gateway: tuple[Gateway, str], me: Person) -> Rest:
    return Rest(gateway[1], dict(me.headers))


@pytest.fixture
def anonymous(call: Rest) -> Rest:
    return replace(call, headers={})


async def created(call: Rest, title: str = "Water the plants") -> dict[str, Any]:
    response = await call("POST", "/v1/tasks", {"title": title})
    assert response.status == 200, response
    return dict(response.json["task"])


# --- routes -----------------------------------------------------------------------------------------------------------
def rules_of_the_contract() -> list[HttpRule]:
    methods: list[MethodDescriptor] = [method for service in contract_services() for method in service.methods]
    return [rule for method in methods for rule in http_rules(method)]


def target_of(rule: HttpRule) -> str:
    parts = [AN_ID if segment == "*" else segment for segment in rule.template.segments]
    return "/" + "/".join(parts) + (f":{rule.template.verb}" if rule.template.verb else "")


async def test_every_route_leads_to_its_method(anonymous: Rest, log: list[Any]) -> None:
    """Without a credential, so that only public methods read the message."""
    rules = rules_of_the_contract()
    assert len(rules) > 50
    for rule in rules:
        log.clear()
        response = await anonymous(rule.verb, target_of(rule), {} if rule.body else None)
        reached = [line["method"] for line in log if line["event"] == "call"]
        assert reached == [rule.name], rule
        if effective_policy(rule.method).access != ACCESS_PUBLIC:
            assert (response.status, response.reason) == (401, "CREDENTIAL_MISSING"), rule
        assert response.header("x-request-id"), rule


async def test_task_is_created_read_listed_changed_and_deleted(call: Rest) -> None:
    task = await created(call)
    path = f"/v1/tasks/{task['id']}"
    assert (await call("GET", path)).json == {"task": task}
    assert [each["id"] for each in (await call("GET", "/v1/tasks?page_size=5")).json["tasks"]] == [task["id"]]
    changed = (await call("PATCH", path, {"completed": True})).json["task"]
    assert (changed["completed"], changed["title"]) == (True, task["title"])
    assert (await call("PATCH", path, {"completed": False})).json["task"]["completed"] is False
    assert (await call("DELETE", path)).status == 200
    assert (await call("GET", path)).reason == "TASK_NOT_FOUND"
    assert (await call("POST", f"{path}:undelete")).json["task"]["id"] == task["id"]


async def test_batch_has_its_ids_in_the_query(call: Rest) -> None:
    tasks = [await created(call, title) for title in ("one", "two")]
    query = "&".join(f"taskIds={task['id']}" for task in tasks)
    assert (await call("GET", f"/v1/tasks:batchGet?{query}")).json["tasks"] == tasks


async def test_fields_keep_their_json_types(call: Rest) -> None:
    await created(call)
    page = (await call("GET", "/v1/tasks?includeTotalSize=true")).json
    assert (page["totalSize"], page["nextPageToken"]) == ("1", "")  # int64 is text
    assert page["tasks"][0]["completed"] is False


@pytest.mark.parametrize("path", ["/v1", "/v1/tasks/", "/v2/tasks", "/v1/tasks/a/b", "/v1/tasks/a:nothing"])
async def test_unknown_path_is_404_in_json(call: Rest, path: str) -> None:
    response = await call("GET" if path != "/v1/tasks/a:nothing" else "POST", path)
    assert (response.status, response.json["code"], response.reason) == (404, 5, "METHOD_UNKNOWN")
    assert response.header("x-request-id")


async def test_other_http_method_is_405_with_those_there_are(call: Rest) -> None:
    response = await call("PUT", f"/v1/tasks/{AN_ID}")
    assert (response.status, response.header("allow")) == (405, "DELETE, GET, HEAD, OPTIONS, PATCH")
    assert response.reason == "METHOD_UNKNOWN"
    response = await call("OPTIONS", "/v1/tasks")
    assert (response.status, response.header("allow"), response.body) == (204, "GET, HEAD, OPTIONS, POST", b"")


async def test_options_of_the_whole_server_are_answered(call: Rest) -> None:
    assert (await call("OPTIONS", "*")).status == 204


async def test_call_while_the_gateway_drains_is_503(call: Rest, gateway: tuple[Gateway, str]) -> None:
    gateway[0].routes.draining = True
    response = await call("GET", "/v1/tasks")
    assert (response.status, response.reason, response.header("retry-after")) == (503, "UNAVAILABLE", "1")
    assert response.header("x-request-id")


async def test_head_is_get_without_its_body(call: Rest) -> None:
    path = f"/v1/tasks/{(await created(call))['id']}"
    got, head = await call("GET", path), await call("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    for name in ("content-type", "content-length", "etag"):
        assert head.header(name) == got.header(name)


@pytest.mark.parametrize("segment", ["..", "%2e%2e", "a%2Fb", "%ff", "%zz"])
async def test_path_that_proxies_read_differently_is_refused(call: Rest, segment: str) -> None:
    response = await call("GET", f"/v1/tasks/{segment}")
    assert (response.status, set(response.violations)) == (400, {"path"})


# --- what a request may be --------------------------------------------------------------------------------------------
async def test_access_is_decided_before_the_body_is_read(anonymous: Rest) -> None:
    """The client promises a body, and sends none."""
    fields = {"content-length": "100", "content-type": "application/json"}
    async with sent(anonymous.address, "POST", "/v1/tasks", headers=fields) as reader:
        status, _ = await asyncio.wait_for(read_head(reader), 2)
    assert status == 401


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", ""]
)
async def test_body_of_another_type_is_415(call: Rest, kind: str) -> None:
    response = await call("POST", "/v1/tasks", b'{"title": "a"}', content_type=kind)
    assert (response.status, response.header("accept"), response.reason) == (415, "application/json", "INVALID_MESSAGE")


@pytest.mark.parametrize("kind", ["application/json;charset=UTF-8", "Application/JSON"])
async def test_type_of_json_may_name_its_charset(call: Rest, kind: str) -> None:
    assert (await call("POST", "/v1/tasks", b'{"title": "a"}', content_type=kind)).status == 200


async def test_empty_body_needs_no_type(call: Rest) -> None:
    task = await created(call)
    await call("DELETE", f"/v1/tasks/{task['id']}")
    assert (await call("POST", f"/v1/tasks/{task['id']}:undelete")).status == 200


async def test_every_problem_is_reported_at_once(call: Rest) -> None:
    body = b'{"titel": "a", "completed": "secret", "description": 1, "description": 2}'
    response = await call(
        "PATCH",
        f"/v1/tasks/{AN_ID}?colour=red",
        body,
        content_type="application/json",
        if_match="W/x",
        grpc_timeout="1x",
    )
    assert response.status == 400
    assert set(response.violations) == {
        *("colour", "task.titel", "task.completed", "task.description", "if-match", "grpc-timeout")
    }
    assert b"secret" not in response.body


async def test_path_that_contradicts_the_body_is_refused(call: Rest) -> None:
    task = await created(call)
    response = await call("PATCH", f"/v1/tasks/{task['id']}", {"id": AN_ID, "title": "b"})
    assert (response.status, set(response.violations)) == (400, {"task.id"})


async def test_body_where_none_belongs_is_refused(call: Rest) -> None:
    response = await call("GET", "/v1/tasks", {})
    assert (response.status, response.violations) == (400, {"": "this method takes no body"})


async def test_body_may_be_gzip(call: Rest) -> None:
    body = gzip.compress(b'{"title": "a"}')
    response = await call("POST", "/v1/tasks", body, content_type="application/json", content_encoding="gzip")
    assert response.json["task"]["title"] == "a"


async def test_bodies_that_arrive_count_together_with_those_of_other_calls(
    call: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(INCOMPLETE, "limit", 1000)
    with INCOMPLETE.holding(950):
        response = await call("POST", "/v1/tasks", {"title": "x" * 100})
    assert (response.status, response.json["code"]) == (429, 8)
    assert (await call("POST", "/v1/tasks", {"title": "x" * 100})).status == 200
    assert INCOMPLETE.held == 0


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", b"not gzip", 400),
        ("gzip", gzip.compress(b'{"title": "a"}', mtime=0)[:-4], 400),
        ("gzip", gzip.compress(b" " * (5 << 20)), 413),
        ("br", b"{}", 415),
        ("identity", b" " * (5 << 20), 413),
    ],
)
async def test_body_that_cannot_be_read_is_refused(call: Rest, encoding: str, body: bytes, status: int) -> None:
    response = await call("POST", "/v1/tasks", body, content_type="application/json", content_encoding=encoding)
    assert (response.status, response.reason) == (status, "INVALID_MESSAGE")


async def test_bytes_in_a_url_must_be_percent_encoded(call: Rest) -> None:
    for target in ("/v1/tasks/\xc3\xbc", "/v1/tasks?title_contains=\xc3\xbc"):
        response = await call("GET", target)
        assert response.status == 400
    await created(call, "Über")
    assert len((await call("GET", "/v1/tasks?title_contains=%C3%9Cber")).json["tasks"]) == 1


async def test_large_list_is_compressed_if_the_client_accepts_it(call: Rest) -> None:
    requests = [{"title": "a" * 100} for _ in range(100)]
    assert (await call("POST", "/v1/tasks:batchCreate", {"requests": requests})).status == 200
    plain = await call("GET", "/v1/tasks?page_size=100")
    compressed = await call("GET", "/v1/tasks?page_size=100", accept_encoding="gzip, br")
    assert (plain.header("content-encoding"), compressed.header("content-encoding")) == (None, "gzip")
    assert gzip.decompress(compressed.body) == plain.body
    assert len(compressed.body) < len(plain.body) / 2


# --- versions and retries ---------------------------------------------------------------------------------------------
async def test_etag_of_a_resource_is_a_header_and_if_match_requires_it(call: Rest) -> None:
    response = await call("POST", "/v1/tasks", {"title": "a"})
    task, etag = response.json["task"], response.header("etag")
    assert etag == f'"{task["etag"]}"'
    path = f"/v1/tasks/{task['id']}"
    assert (await call("PATCH", path, {"title": "b"}, if_match=etag)).status == 200
    stale = await call("PATCH", path, {"title": "c"}, if_match=etag)
    assert (stale.status, stale.reason) == (412, "ETAG_MISMATCH")
    assert (await call("DELETE", path, if_match=etag)).status == 412
    assert (await call("GET", path)).json["task"]["title"] == "b"


async def test_stale_etag_in_the_body_is_409(call: Rest) -> None:
    task = await created(call)
    response = await call("PATCH", f"/v1/tasks/{task['id']}", {"title": "b", "etag": str(uuid4())})
    assert (response.status, response.reason) == (409, "ETAG_MISMATCH")


@pytest.mark.parametrize("value", ["*", "abc", f'W/"{AN_ID}"', f'"{AN_ID}", "{AN_ID}"', '""'])
async def test_if_match_is_one_strong_etag(call: Rest, value: str) -> None:
    task = await created(call)
    response = await call("PATCH", f"/v1/tasks/{task['id']}", {"title": "b"}, if_match=value)
    assert (response.status, set(response.violations)) == (400, {"if-match"})


async def test_if_match_is_refused_where_it_has_no_effect(call: Rest) -> None:
    response = await call("POST", "/v1/tasks", {"title": "a"}, if_match=f'"{AN_ID}"')
    assert (response.status, response.violations) == (400, {"if-match": "is not supported by this method"})


async def test_list_has_no_etag(call: Rest) -> None:
    await created(call)
    assert (await call("GET", "/v1/tasks")).header("etag") is None


async def test_resource_that_has_not_changed_is_304(call: Rest) -> None:
    task = await created(call)
    path, etag = f"/v1/tasks/{task['id']}", f'"{task["etag"]}"'
    unchanged = await call("GET", path, if_none_match=etag)
    assert (unchanged.status, unchanged.body, unchanged.header("etag")) == (304, b"", etag)
    assert (await call("GET", path, if_none_match="*")).status == 304
    assert (await call("GET", path, if_none_match=f'"{AN_ID}"')).status == 200


async def test_idempotency_key_creates_once(call: Rest) -> None:
    key = str(uuid4())
    first = await call("POST", "/v1/tasks", {"title": "a"}, idempotency_key=key)
    second = await call("POST", "/v1/tasks", {"title": "a"}, idempotency_key=f'"{key}"')
    assert first.json == second.json
    other = await call("POST", "/v1/tasks", {"title": "b"}, idempotency_key=key)
    assert (other.status, other.reason) == (400, "REQUEST_ID_REUSED")


@pytest.mark.parametrize(("key", "body"), [("abc", None), (AN_ID, ANOTHER_ID)])
async def test_wrong_idempotency_key_is_refused(call: Rest, key: str, body: str | None) -> None:
    fields = {"title": "a"} | ({"request_id": body} if body else {})
    response = await call("POST", "/v1/tasks", fields, idempotency_key=key)
    assert (response.status, len(response.violations)) == (400, 1)


async def test_idempotency_key_is_refused_by_a_method_that_could_take_effect_twice(call: Rest) -> None:
    response = await call("POST", "/v1/account:changeEmail", {"new_email": "a@example.com"}, idempotency_key=AN_ID)
    assert (response.status, set(response.violations)) == (400, {"idempotency-key"})
    assert (await call("GET", "/v1/tasks", idempotency_key=AN_ID)).status == 200


# --- errors and headers -----------------------------------------------------------------------------------------------
async def test_errors_are_google_rpc_status_and_have_the_request_id(call: Rest) -> None:
    response = await call("GET", f"/v1/tasks/{AN_ID}", x_request_id="mine-7")
    assert (response.status, response.header("x-request-id")) == (404, "mine-7")
    assert response.json == {
        "code": 5,
        "message": "The task does not exist. Check the task_id.",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "TASK_NOT_FOUND",
                "domain": "accord",
                "metadata": {"task_id": AN_ID},
            }
        ],
    }


async def test_responses_are_neither_cached_nor_sniffed(call: Rest) -> None:
    for target in ("/v1/tasks", f"/v1/tasks/{AN_ID}", "/nothing"):
        response = await call("GET", target)
        assert (response.header("cache-control"), response.header("x-content-type-options")) == ("no-store", "nosniff")
        assert response.header("content-type") == "application/json"


async def test_missing_credential_names_the_scheme(anonymous: Rest) -> None:
    response = await anonymous("GET", "/v1/tasks")
    assert (response.status, response.header("www-authenticate")) == (401, "Bearer")


async def test_two_credentials_are_ambiguous(call: Rest) -> None:
    assert (await call("GET", "/v1/tasks", x_api_key="a")).reason == "CREDENTIAL_AMBIGUOUS"


@pytest.mark.parametrize("header", ["grpc_timeout", "connect_timeout_ms"])
async def test_malformed_deadline_is_400(call: Rest, header: str) -> None:
    response = await call("GET", "/v1/tasks", **{header: "soon"})
    assert (response.status, set(response.violations)) == (400, {header.replace("_", "-")})


# --- the probe: deadlines, limits and streams -------------------------------------------------------------------------
@pytest.fixture
async def probe(
    database: Database, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[probes.Probe, Rest]]:
    monkeypatch.setattr(probes, "Settings", partial(Settings, server="accord"))
    server, probe = probes.build_probe_server(database, listener, rate_limiter("async+memory://"))
    port = server.listen()
    await server.start()
    person = await signed_in_person(database)
    yield probe, Rest(f"127.0.0.1:{port}", dict(person.headers))
    await server.stop(None)


@pytest.mark.parametrize("header", [{"grpc_timeout": "50m"}, {"connect_timeout_ms": "50"}])
async def test_deadline_of_the_client_ends_the_call(probe: tuple[probes.Probe, Rest], header: dict[str, str]) -> None:
    response = await probe[1]("POST", "/v1/probe:unary", {"act": "sleep"}, **header)
    assert (response.status, response.reason) == (504, "DEADLINE_EXCEEDED")


async def test_rate_limit_is_429_with_the_time_to_wait(probe: tuple[probes.Probe, Rest]) -> None:
    for _ in range(3):
        assert (await probe[1]("POST", "/v1/probe:limited", {})).status == 200
    response = await probe[1]("POST", "/v1/probe:limited", {})
    assert (response.status, response.reason) == (429, "RATE_LIMITED")
    assert 1 <= int(response.header("retry-after") or 0) <= 60


async def test_disconnect_cancels_the_call(probe: tuple[probes.Probe, Rest]) -> None:
    handler, call = probe
    async with sent(call.address, "POST", "/v1/probe:unary", {"act": "sleep"}, call.headers):
        while not handler.entered:
            await asyncio.sleep(0.005)
    await asyncio.wait_for(handler.cancelled.wait(), 1)


async def test_stream_is_one_document_a_line(probe: tuple[probes.Probe, Rest]) -> None:
    response = await probe[1]("POST", "/v1/probe:serverStream", {"text": "a"})
    assert (response.status, response.header("content-type")) == (200, "application/x-ndjson")
    assert response.header("x-request-id")
    assert response.body == b'{"text":"a"}\n' * 3


async def test_stream_is_events_if_the_client_accepts_them(probe: tuple[probes.Probe, Rest]) -> None:
    response = await probe[1]("POST", "/v1/probe:serverStream", {"text": "a"}, accept="text/event-stream")
    assert response.header("content-type") == "text/event-stream"
    assert response.body == b'data: {"text":"a"}\n\n' * 3 + b"event: end\ndata: {}\n\n"


async def test_error_is_the_last_element_of_a_stream(probe: tuple[probes.Probe, Rest]) -> None:
    body = {"text": "a", "act": "refuse"}
    *lines, last = (await probe[1]("POST", "/v1/probe:serverStream", body)).body.splitlines()
    assert lines == [b'{"text":"a"}'] * 3
    assert json.loads(last)["error"]["details"][0]["reason"] == "TASK_NOT_FOUND"
    events = (await probe[1]("POST", "/v1/probe:serverStream", body, accept="text/event-stream")).body
    event, data = events.split(b"\n\n")[3].split(b"\n")
    assert event == b"event: error"
    assert json.loads(data.removeprefix(b"data: "))["code"] == 5


async def test_error_before_the_first_message_has_its_status(probe: tuple[probes.Probe, Rest]) -> None:
    response = await probe[1]("POST", "/v1/probe:serverStream", {"act": "x" * 40}, accept="text/event-stream")
    assert (response.status, set(response.violations)) == (400, {"act"})
    assert (await probe[1]("HEAD", "/v1/probe:serverStream")).status == 405


async def test_quiet_stream_has_heartbeats(probe: tuple[probes.Probe, Rest], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest_calls, "HEARTBEAT_SECONDS", 0.03)
    handler, call = probe
    fields = call.headers | {"accept": "text/event-stream"}
    async with sent(call.address, "POST", "/v1/probe:serverStream", {"text": "a", "act": "wait"}, fields) as reader:
        await read_head(reader)
        started = await asyncio.wait_for(reader.readuntil(b": \n\n\r\n"), 1)
        handler.go_on.set()
        rest_of_it = await asyncio.wait_for(reader.read(), 1)
    assert b"".join(chunks(started)).startswith(b'data: {"text":"a"}\n\n' * 3)
    assert b"event: end" in rest_of_it
