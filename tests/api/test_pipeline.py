"""Each stage of the pipeline, for unary and streaming methods of the probe service."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import grpc
import psycopg
import pytest
from prometheus_client import REGISTRY
from psycopg import sql

from accord_db.engine.database import Database
from accord_db.engine.listen import Listener
from accord_db.queries import sessions
from accord_rpc.pipeline.rate_limits import rate_limiter
from tests.api.conftest import refusal
from tests.api.probe import ProbeClient, build_probe_server, generated
from tests.conftest import execute
from tests.factories import signed_in_person

KINDS = ("Unary", "ServerStream", "ClientStream", "BothStream")


# --- every kind of call -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
async def test_call_of_each_kind_gets_a_response(probe: ProbeClient, kind: str) -> None:
    assert set(await probe.call(kind, text="hello")) == {"hello"}


@pytest.mark.parametrize("kind", KINDS)
async def test_call_of_each_kind_without_a_credential_is_refused_before_the_handler(
    probe: ProbeClient, kind: str
) -> None:
    refused = await refusal(probe.call(kind, headers=()))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_MISSING")
    assert probe.probe.entered == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_unexpected_exception_returns_internal_with_only_an_error_id(
    probe: ProbeClient, kind: str, log: list[Any]
) -> None:
    refused = await refusal(probe.call(kind, "raise"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert list(refused.metadata) == ["error_id"]
    assert "secret" not in repr(refused)
    (line,) = [line for line in log if line.get("error_id") == refused.metadata["error_id"]]
    assert "secret text of a fault" in str(line["exc_info"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("act", ["cancel", "exit", "time out"])
async def test_handler_that_raises_cancellation_exit_or_timeout_returns_internal(
    probe: ProbeClient, kind: str, act: str
) -> None:
    assert (await refusal(probe.call(kind, act))).code == grpc.StatusCode.INTERNAL
    assert await probe.call("Unary", text="still here") == ["still here"]


@pytest.mark.parametrize("kind", KINDS)
async def test_error_reaches_the_caller_with_its_reason_and_metadata(probe: ProbeClient, kind: str) -> None:
    refused = await refusal(probe.call(kind, "refuse"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND")
    assert refused.metadata == {"task_id": "7"}


async def test_undeclared_reason_is_an_internal_error(probe: ProbeClient) -> None:
    assert (await refusal(probe.call("Unary", "refuse undeclared"))).reason == "INTERNAL"


async def test_handler_that_returns_none_is_an_internal_error(probe: ProbeClient) -> None:
    assert (await refusal(probe.call("Unary", "return nothing"))).reason == "INTERNAL"


@pytest.mark.parametrize("kind", KINDS)
async def test_invalid_message_of_each_kind_is_refused_with_all_its_violations(probe: ProbeClient, kind: str) -> None:
    messages, _ = generated()
    bad = messages.ProbeRequest(act="x" * 33, text="y" * 65, texts=["fine", "ok"])
    refused = await refusal(probe.send(kind, bad))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE")
    assert sorted(refused.violations) == ["act", "text", "texts[0]"]
    assert probe.probe.entered == 0


@pytest.mark.parametrize("kind", ["ClientStream", "BothStream"])
async def test_stream_ends_at_its_first_invalid_message(probe: ProbeClient, kind: str) -> None:
    messages, _ = generated()
    good, bad = messages.ProbeRequest(text="good"), messages.ProbeRequest(text="y" * 65)
    assert (await refusal(probe.send(kind, good, bad, good))).reason == "INVALID_MESSAGE"
    assert probe.probe.entered == 1


# --- deadlines --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
async def test_call_without_a_deadline_gets_the_default_of_its_policy(probe: ProbeClient, kind: str) -> None:
    refused = await refusal(probe.call(kind, "sleep"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    assert probe.probe.cancelled.is_set()


async def test_deadline_longer_than_the_policy_allows_is_cut(probe: ProbeClient) -> None:
    refused = await refusal(probe.call("Unary", "sleep", timeout=60))
    assert refused.reason == "DEADLINE_EXCEEDED"


async def test_stalled_stream_of_requests_ends_at_the_deadline(probe: ProbeClient) -> None:
    messages, stubs = generated()

    async def stop_half_way(kind: str) -> None:
        call = getattr(stubs.ProbeServiceStub(probe.channel), kind)(metadata=probe.person.headers)
        await call.write(messages.ProbeRequest(text="one"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async with asyncio.timeout(10):
                while True:
                    await (call if kind == "ClientStream" else call.read())
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED

    await asyncio.gather(*map(stop_half_way, ("ClientStream", "BothStream")))


async def test_call_without_a_message_ends_at_the_deadline(probe: ProbeClient) -> None:
    """Uses streaming stubs, because unary stubs of grpcio always send a message; on the wire both are the same."""
    calls: list[grpc.aio.StreamUnaryCall[Any, Any]] = [
        probe.channel.stream_unary(f"/probe.v1.ProbeService/{method}")(metadata=headers)
        for method, headers in (("Unary", probe.person.headers), ("Public", ()))
    ]
    for refused in await asyncio.gather(*map(refusal, calls)):
        assert (refused.code, refused.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


async def test_cancelling_the_call_cancels_the_handler(probe: ProbeClient, log: list[Any]) -> None:
    call = asyncio.create_task(probe.call("Unary", "sleep"))
    while not probe.probe.entered:
        await asyncio.sleep(0.01)
    call.cancel()
    async with asyncio.timeout(2):
        await probe.probe.cancelled.wait()
    await asyncio.sleep(0.05)
    assert log[-1]["code"] == "CANCELLED"


# --- credentials ------------------------------------------------------------------------------------------------------
async def test_concurrent_handlers_each_see_their_own_caller(probe: ProbeClient, database: Database) -> None:
    people = [await signed_in_person(database) for _ in range(10)]
    callers = [person for person in people for _ in range(15)]
    responses = await asyncio.gather(*(probe.call("Unary", "account id", headers=person.headers) for person in callers))
    assert responses == [[str(person.account_id)] for person in callers]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "bearer x",
        "Basic dXNlcjpwdw==",
        "Bearer acs_" + "A" * 49,
        "acs_token",
        "Bearer " + "x" * 5000,
    ],
)
async def test_wrong_credential_is_refused_with_one_reason(probe: ProbeClient, value: str) -> None:
    refused = await refusal(probe.call("Unary", headers=(("authorization", value),)))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID")
    assert not refused.metadata


@pytest.mark.parametrize("method", ["Unary", "Public"])
async def test_second_credential_is_refused_even_if_it_is_the_same(probe: ProbeClient, method: str) -> None:
    once = probe.person.headers
    for headers in (once + once, (*once, ("x-api-key", "k")), (*once, ("authorization", "Bearer other"))):
        refused = await refusal(probe.call(method, headers=headers))
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_AMBIGUOUS")


async def test_scheme_of_the_credential_is_case_insensitive(probe: ProbeClient) -> None:
    assert await probe.call("Unary", text="x", headers=(("authorization", f"bEARER {probe.person.token}"),)) == ["x"]


async def test_public_method_ignores_a_credential(probe: ProbeClient) -> None:
    assert await probe.call("Public", text="x", headers=(("authorization", "Bearer gone"),)) == ["x"]


async def test_use_of_the_caller_in_a_public_method_is_an_internal_error(probe: ProbeClient) -> None:
    assert (await refusal(probe.call("Public", "account id", headers=probe.person.headers))).reason == "INTERNAL"


@pytest.mark.parametrize("method", ["Admin", "Service", "KeysOnly"])
async def test_method_for_another_kind_of_caller_is_denied(probe: ProbeClient, method: str) -> None:
    refused = await refusal(probe.call(method))
    assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")


async def test_fresh_method_requires_a_sign_in_within_ten_minutes(probe: ProbeClient, dsn: str) -> None:
    execute(dsn, sql.SQL("UPDATE sessions SET authenticated_at = now() - interval '9 minutes 50 seconds'"))
    assert await probe.call("Fresh", text="x") == ["x"]


async def test_fresh_method_refuses_an_older_sign_in(probe: ProbeClient, dsn: str) -> None:
    execute(dsn, sql.SQL("UPDATE sessions SET authenticated_at = now() - interval '10 minutes 1 second'"))
    refused = await refusal(probe.call("Fresh"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "SIGN_IN_NOT_FRESH")
    assert await probe.call("Unary", text="x") == ["x"]


async def test_expired_and_revoked_sessions_get_the_same_error(probe: ProbeClient, database: Database) -> None:
    expired = await signed_in_person(database, lifetime=timedelta(seconds=-1))
    revoked = await signed_in_person(database)
    await sessions.revoke_session(database, session_id=revoked.session_id, account_id=revoked.account_id)
    first, second = [await refusal(probe.call("Unary", headers=person.headers)) for person in (expired, revoked)]
    assert first == second
    assert first.reason == "CREDENTIAL_INVALID"


# --- rate limits ------------------------------------------------------------------------------------------------------
async def test_limit_by_caller_returns_the_time_to_wait_and_does_not_affect_other_callers(
    probe: ProbeClient, database: Database
) -> None:
    for _ in range(3):
        await probe.call("Limited")
    refused = await refusal(probe.call("Limited"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert refused.retry_after is not None
    assert 0 < refused.retry_after <= 60
    assert refused.quota == [f"account:{probe.person.account_id}"]
    assert await probe.call("Limited", text="x", headers=(await signed_in_person(database)).headers) == ["x"]
    assert await probe.call("Unary", text="x") == ["x"]


async def test_limit_by_peer_counts_a_public_method(probe: ProbeClient) -> None:
    for _ in range(3):
        await probe.call("LimitedByPeer", headers=())
    refused = await refusal(probe.call("LimitedByPeer", headers=()))
    assert (refused.reason, refused.quota) == ("RATE_LIMITED", ["peer:127.0.0.1"])


async def test_invalid_message_does_not_count_against_the_limit(probe: ProbeClient) -> None:
    for _ in range(5):
        assert (await refusal(probe.call("Limited", text="y" * 65))).reason == "INVALID_MESSAGE"
    assert await probe.call("Limited", text="x") == ["x"]


async def test_call_is_refused_if_its_limit_cannot_be_counted(database: Database, listener: Listener) -> None:
    server, probe = build_probe_server(database, listener, rate_limiter("async+redis://127.0.0.1:1"))
    port = server.listen()
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        client = ProbeClient(probe, channel, await signed_in_person(database))
        refused = await refusal(client.call("Limited"))
    await server.stop(None)
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")


# --- retries and audit ------------------------------------------------------------------------------------------------
async def test_handler_is_retried_after_a_conflict_with_another_transaction(probe: ProbeClient) -> None:
    assert await probe.call("Unary", "conflict twice", "x") == ["x"]
    assert probe.probe.conflicts == 3


async def test_handler_that_always_conflicts_returns_aborted(probe: ProbeClient) -> None:
    refused = await refusal(probe.call("Unary", "conflict always"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ABORTED, "CONFLICT")
    assert probe.probe.conflicts > 2


async def test_audited_call_writes_an_event_for_every_outcome(probe: ProbeClient, dsn: str) -> None:
    await probe.call("Audited", text="x")
    await refusal(probe.call("Audited", "refuse"))
    await refusal(probe.call("Audited", "raise"))
    with psycopg.connect(dsn) as connection:
        query = "SELECT account_id, method, peer, code, reason, request_id FROM audit_events ORDER BY occurred_at"
        events = connection.execute(query).fetchall()
    assert [(event[3], event[4]) for event in events] == [
        ("OK", None),
        ("NOT_FOUND", "TASK_NOT_FOUND"),
        ("INTERNAL", "INTERNAL"),
    ]
    assert {event[0] for event in events} == {probe.person.account_id}
    assert {event[1] for event in events} == {"/probe.v1.ProbeService/Audited"}
    assert {event[2] for event in events} == {"127.0.0.1"}
    assert len({event[5] for event in events}) == 3


async def test_pending_outcome_writes_no_event(probe: ProbeClient, dsn: str) -> None:
    refused = await refusal(probe.call("Audited", "refuse undecided"))
    assert (refused.reason, refused.retry_after) == ("AUTHORIZATION_PENDING", 5)
    await probe.call("Audited")
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT code FROM audit_events").fetchall() == [("OK",)]


# --- telemetry --------------------------------------------------------------------------------------------------------
async def test_call_writes_one_log_line_without_its_message(probe: ProbeClient, log: list[Any]) -> None:
    messages, _ = generated()
    await probe.send("Unary", messages.ProbeRequest(text="visible", secret="hidden"))
    (line,) = [line for line in log if line["event"] == "call"]
    assert line["method"] == "/probe.v1.ProbeService/Unary"
    assert line["code"] == "OK"
    assert line["account_id"] == str(probe.person.account_id)
    assert line["ms"] >= 0
    assert "visible" not in json.dumps(line)
    assert probe.person.token not in json.dumps(line)


async def test_request_id_of_the_caller_is_logged_and_returned(probe: ProbeClient, log: list[Any]) -> None:
    headers = (*probe.person.headers, ("x-request-id", "from-the-edge.1"))
    await probe.call("Unary", headers=headers)
    assert log[-1]["request_id"] == "from-the-edge.1"
    messages, stubs = generated()
    call = stubs.ProbeServiceStub(probe.channel).Unary(messages.ProbeRequest(), metadata=headers)
    await call
    assert dict(await call.trailing_metadata())["x-request-id"] == "from-the-edge.1"


@pytest.mark.parametrize("sent", ["", "a b", "x" * 65, "<script>", '"quoted"'])
async def test_malformed_request_id_is_replaced(probe: ProbeClient, log: list[Any], sent: str) -> None:
    await probe.call("Unary", headers=(*probe.person.headers, ("x-request-id", sent)))
    assert log[-1]["request_id"] != sent


def handled(method: str, code: str, service: str = "probe.v1.ProbeService") -> float:
    labels = {"service": service, "method": method, "code": code}
    return REGISTRY.get_sample_value("grpc_server_handled_total", labels) or 0


@pytest.mark.parametrize("kind", KINDS)
async def test_call_is_counted_by_method_and_code(probe: ProbeClient, kind: str) -> None:
    before = {code: handled(kind, code) for code in ("OK", "NOT_FOUND", "UNAUTHENTICATED")}
    await probe.call(kind)
    await refusal(probe.call(kind, "refuse"))
    await refusal(probe.call(kind, headers=()))
    assert {code: handled(kind, code) - count for code, count in before.items()} == dict.fromkeys(before, 1)


async def test_duration_of_a_timed_out_call_is_measured(probe: ProbeClient) -> None:
    labels = {"service": "probe.v1.ProbeService", "method": "Unary"}
    before = REGISTRY.get_sample_value("grpc_server_handling_seconds_sum", labels) or 0
    with pytest.raises(grpc.aio.AioRpcError):
        await probe.call("Unary", "sleep", timeout=0.3)
    await asyncio.sleep(0.1)
    assert (REGISTRY.get_sample_value("grpc_server_handling_seconds_sum", labels) or 0) - before > 0.25


@pytest.mark.parametrize("path", ["/probe.v1.ProbeService/Nope", "/a/b", "/probe.v1.probeservice/Unary"])
async def test_unknown_method_is_unimplemented_and_counted_under_one_name(
    probe: ProbeClient, path: str, log: list[Any]
) -> None:
    before = handled("unknown", "UNIMPLEMENTED", "unknown")
    refused = await refusal(probe.channel.unary_unary(path, bytes, bytes)(b""))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNIMPLEMENTED, "METHOD_UNKNOWN")
    assert handled("unknown", "UNIMPLEMENTED", "unknown") == before + 1
    assert log[-1]["method"] == path


async def test_thousand_calls_leak_no_task(probe: ProbeClient, log: list[Any]) -> None:
    """No outcome of a call leaves a task behind."""
    acts = ["", "raise", "refuse", "cancel", "exit"]
    before = len(asyncio.all_tasks())
    await asyncio.gather(
        *(probe.call(kind, act) for kind in KINDS for act in acts for _ in range(50)), return_exceptions=True
    )
    await asyncio.sleep(0.2)
    assert len(asyncio.all_tasks()) <= before + 2
