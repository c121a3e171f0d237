"""grpc.health.v1, as load balancers use it."""

import asyncio
import signal

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListRequest

from accord_postgres import EmbeddedPostgres
from accord_rpc.contract import contract_services
from tests.gateway.conftest import Running, Start, health_of, healthy

SERVICES = ("", *(service.full_name for service in contract_services()), "grpc.health.v1.Health")
SERVING, NOT_SERVING = int(HealthCheckResponse.SERVING), int(HealthCheckResponse.NOT_SERVING)


def test_every_service_has_its_health(gateway: Running) -> None:
    with grpc.insecure_channel(gateway.address) as channel:
        assert [health_of(channel, service) for service in SERVICES] == [SERVING] * len(SERVICES)
        listed = health_pb2_grpc.HealthStub(channel).List(HealthListRequest()).statuses
        assert {name: int(answer.status) for name, answer in listed.items()} == dict.fromkeys(SERVICES, SERVING)


def test_a_service_that_is_not_served_is_not_found(gateway: Running) -> None:
    with grpc.insecure_channel(gateway.address) as channel:
        try:
            health_of(channel, "accord.unknown.v1.Nothing")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND
        else:
            raise AssertionError("it was found")


async def test_watchers_are_told_of_the_stop_and_do_not_hold_it_up(start: Start, database_url: str) -> None:
    gateway = start(DATABASE_URL=database_url, DRAIN_SECONDS=60)
    async with grpc.aio.insecure_channel(gateway.address) as channel:
        watching = health_pb2_grpc.HealthStub(channel).Watch(HealthCheckRequest())
        assert int((await watching.read()).status) == SERVING
        gateway.process.send_signal(signal.SIGTERM)
        assert int((await watching.read()).status) == NOT_SERVING
        assert await watching.read() is grpc.aio.EOF
        assert await asyncio.to_thread(gateway.process.wait, 10) == 0


def test_it_follows_the_database(start: Start, own_postgres: EmbeddedPostgres) -> None:
    gateway = start(DATABASE_URL=own_postgres.dsn)
    with grpc.insecure_channel(gateway.address) as channel:
        watching = health_pb2_grpc.HealthStub(channel).Watch(HealthCheckRequest(service=SERVICES[2]))
        assert int(next(watching).status) == SERVING
        own_postgres.stop()
        assert int(next(watching).status) == NOT_SERVING
        own_postgres.start()
        assert int(next(watching).status) == SERVING
        watching.cancel()
    assert gateway.stop() == 0


def test_a_stop_while_the_database_is_gone_takes_no_longer(start: Start, own_postgres: EmbeddedPostgres) -> None:
    gateway = start(DATABASE_URL=own_postgres.dsn)
    assert healthy(gateway.address)
    own_postgres.stop()
    gateway.event("not_serving")
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(5) == 0
    assert "Traceback" not in gateway.said
