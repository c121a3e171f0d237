"""grpc.health.v1, as load balancers use it."""

import asyncio
import signal

import grpc
import pytest
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListRequest

from accord_postgres import EmbeddedPostgres
from accord_rpc.contract import contract_services
from tests.gateway.conftest import GatewayProcess, Start, health_of, healthy

SERVICES = ("", *(service.full_name for service in contract_services()), "grpc.health.v1.Health")
SERVING, NOT_SERVING = int(HealthCheckResponse.SERVING), int(HealthCheckResponse.NOT_SERVING)


def test_every_service_has_a_status(gateway: GatewayProcess) -> None:
    with grpc.insecure_channel(gateway.address) as channel:
        assert [health_of(channel, service) for service in SERVICES] == [SERVING] * len(SERVICES)
        listed = health_pb2_grpc.HealthStub(channel).List(HealthListRequest()).statuses
        assert {name: int(check.status) for name, check in listed.items()} == dict.fromkeys(SERVICES, SERVING)


def test_an_unknown_service_is_not_found(gateway: GatewayProcess) -> None:
    with grpc.insecure_channel(gateway.address) as channel, pytest.raises(grpc.RpcError) as error:
        health_of(channel, "accord.unknown.v1.Nothing")
    assert error.value.code() == grpc.StatusCode.NOT_FOUND


async def test_watch_reports_the_shutdown_and_does_not_delay_it(start: Start, database_url: str) -> None:
    gateway = start(DATABASE_URL=database_url, DRAIN_SECONDS=60)
    async with grpc.aio.insecure_channel(gateway.address) as channel:
        watching = health_pb2_grpc.HealthStub(channel).Watch(HealthCheckRequest())
        assert int((await watching.read()).status) == SERVING
        gateway.process.send_signal(signal.SIGTERM)
        assert int((await watching.read()).status) == NOT_SERVING
        assert await watching.read() is grpc.aio.EOF
        assert await asyncio.to_thread(gateway.process.wait, 10) == 0


def test_health_follows_the_database(start: Start, separate_postgres: EmbeddedPostgres) -> None:
    gateway = start(DATABASE_URL=separate_postgres.dsn)
    with grpc.insecure_channel(gateway.address) as channel:
        watching = health_pb2_grpc.HealthStub(channel).Watch(HealthCheckRequest(service=SERVICES[2]))
        assert int(next(watching).status) == SERVING
        separate_postgres.stop()
        assert int(next(watching).status) == NOT_SERVING
        separate_postgres.start()
        assert int(next(watching).status) == SERVING
        watching.cancel()
    assert gateway.stop() == 0


def test_an_outage_of_the_database_does_not_delay_the_shutdown(
    start: Start, separate_postgres: EmbeddedPostgres
) -> None:
    gateway = start(DATABASE_URL=separate_postgres.dsn)
    assert healthy(gateway.address)
    separate_postgres.stop()
    gateway.event("not_serving")
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(5) == 0
    assert "Traceback" not in gateway.output
