"""Requests that are a call of no method: one log line each, and a metric."""

from collections.abc import Iterator

import httpx2
import pytest

from tests.api.http2 import connected
from tests.conftest import temporary_database
from tests.gateway.conftest import GatewayProcess, eventually, gateways, read_metrics, url
from tests.ports import free_port


@pytest.fixture(scope="module")
def metrics_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def gateway(
    postgres: str, template: str, metrics_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    with (
        temporary_database(postgres, template=template) as dsn,
        gateways(tmp_path_factory.mktemp("refused")) as start,
    ):
        yield start(DATABASE_URL=url(dsn), LOG_FORMAT="json", METRICS_PORT=metrics_port, TRUSTED_PROXIES="127.0.0.1")


def line(gateway: GatewayProcess, request_id: str, event: str = "request_refused") -> dict[str, object]:
    found = eventually(
        lambda: next((each for each in gateway.events if each.get("request_id") == request_id), None), gateway
    )
    assert found["event"] == event
    return found


@pytest.mark.parametrize(
    ("method", "target", "kind", "status"),
    [
        ("GET", "/v1/nothing", "", 404),
        ("PUT", "/v1/tasks", "application/json", 405),
        ("POST", "/healthz", "", 405),
        ("GET", "/v1/tasks/%2e%2e", "", 400),
        ("PUT", "/accord.tasks.v1.TaskService/ListTasks", "application/json", 405),
        ("POST", "/accord.tasks.v1.TaskService/ListTasks", "text/plain", 415),
        ("PUT", "/accord.tasks.v1.TaskService/ListTasks", "application/grpc-web", 405),
        ("POST", "/accord.tasks.v1.TaskService/ListTasks", "application/grpc-web+thrift", 415),
    ],
)
@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_refused_request_has_one_line(
    gateway: GatewayProcess, method: str, target: str, kind: str, status: int, http2: bool
) -> None:
    with httpx2.Client(http1=not http2, http2=http2, base_url=f"http://{gateway.address}", trust_env=False) as client:
        before = len([each for each in gateway.events if each["event"] == "request_refused"])
        headers = {"x-forwarded-for": "203.0.113.9"} | ({"content-type": kind} if kind else {})
        response = client.request(method, f"{target}?token=secret", headers=headers)
    assert response.status_code == status
    eventually(
        lambda: len([each for each in gateway.events if each["event"] == "request_refused"]) == before + 1 or None,
        gateway,
    )
    found = [each for each in gateway.events if each["event"] == "request_refused"][-1]
    assert (found["http_method"], found["path"], found["status"], found["peer"]) == (
        *(method, target, status),
        "203.0.113.9",
    )
    assert found.get("request_id", "") == response.headers.get("x-request-id", "")
    assert "secret" not in gateway.output


async def test_long_paths_are_cut_and_control_characters_escaped(gateway: GatewayProcess) -> None:
    head = [(":method", "GET"), (":scheme", "http"), (":path", "/\x85" + "a" * 3000), (":authority", "localhost")]
    async with connected(gateway.address) as wire:
        stream = wire.begin("", [("x-request-id", "long")], base=head, end_stream=True)
        assert (await wire.response(stream)).headers[":status"] == "400"
    path = str(line(gateway, "long")["path"])
    assert path.startswith("/\\xc2\\x85aaa")
    assert len(path) < 220


def test_unknown_service_of_grpc_is_a_call_with_a_line(gateway: GatewayProcess) -> None:
    headers = {"content-type": "application/grpc", "te": "trailers", "x-request-id": "unknown"}
    with httpx2.Client(http1=False, http2=True, base_url=f"http://{gateway.address}", trust_env=False) as client:
        assert client.post("/nothing.v1.NoService/Get", headers=headers).headers["grpc-status"] == "12"
        assert client.put("/nothing.v1.NoService/Get", headers=headers).status_code == 405
    found = line(gateway, "unknown", "call")
    assert (found["method"], found["code"]) == ("/nothing.v1.NoService/Get", "UNIMPLEMENTED")


def test_refused_requests_are_counted_by_status_alone(gateway: GatewayProcess, metrics_port: int) -> None:
    def count() -> float:
        metrics = read_metrics(metrics_port).splitlines()
        return sum(
            float(line.rpartition(" ")[2])
            for line in metrics
            if line.startswith('accord_requests_refused_total{status="404"}')
        )

    before = count()
    for number in range(3):
        httpx2.get(f"http://{gateway.address}/v1/nothing{number}", trust_env=False)
    assert count() == before + 3
