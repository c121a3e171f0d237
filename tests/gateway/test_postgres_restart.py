"""The embedded PostgreSQL of a gateway is killed while it serves."""

import os
import signal
import threading
import time
from datetime import datetime

import grpc
import psycopg
import pytest

from accord.tasks.v1.tasks_pb2 import CreateTaskRequest, ListTasksRequest
from accord.tasks.v1.tasks_pb2_grpc import TaskServiceStub
from accord_db.engine.database import Database, DatabaseSettings
from accord_postgres import EmbeddedPostgres
from tests.factories import Person, signed_in_person
from tests.gateway.conftest import GatewayProcess, Start, eventually, healthy

WRITERS = 4


class Writer(threading.Thread):
    """Creates tasks, and records the ids of those that were acknowledged."""

    def __init__(self, address: str, person: Person) -> None:
        super().__init__()
        self._address = address
        self._person = person
        self.stopping = threading.Event()
        self.acknowledged: list[str] = []
        self.codes: set[grpc.StatusCode] = set()

    def run(self) -> None:
        with grpc.insecure_channel(self._address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            tasks = TaskServiceStub(channel)
            while not self.stopping.is_set():
                request = CreateTaskRequest(title="written")
                try:
                    self.acknowledged.append(
                        tasks.CreateTask(request, metadata=self._person.headers, timeout=10).task.id
                    )
                except grpc.RpcError as error:
                    self.codes.add(error.code())


def postmaster(gateway: GatewayProcess) -> int:
    file = gateway.folder / ".accord" / "postgres" / "data" / "postmaster.pid"
    return int(file.read_text().splitlines()[0])


def dsn(gateway: GatewayProcess) -> str:
    return EmbeddedPostgres(gateway.folder / ".accord" / "postgres").dsn


async def new_person(gateway: GatewayProcess) -> Person:
    database = await Database.connect(DatabaseSettings(dsn=dsn(gateway), role=None, pool_size=1))
    try:
        return await signed_in_person(database)
    finally:
        await database.close()


def stored(gateway: GatewayProcess) -> set[str]:
    with psycopg.connect(dsn(gateway)) as connection:
        return {str(task_id) for (task_id,) in connection.execute("SELECT id FROM tasks")}


def times(gateway: GatewayProcess, name: str) -> list[datetime]:
    return [datetime.fromisoformat(str(event["timestamp"])) for event in gateway.events if event["event"] == name]


@pytest.mark.parametrize("workers", [1, 2])
async def test_killed_postgres_is_restarted_and_nothing_acknowledged_is_lost(start: Start, workers: int) -> None:
    gateway = start(WORKERS=workers)
    assert healthy(gateway.address)
    person = await new_person(gateway)
    writers = [Writer(gateway.address, person) for _ in range(WRITERS)]
    for writer in writers:
        writer.start()
    try:
        for restarts in (1, 2):
            before = [len(writer.acknowledged) for writer in writers]
            eventually(lambda: all_wrote(writers, before), gateway)  # noqa: B023  # called at once
            os.kill(postmaster(gateway), signal.SIGKILL)
            eventually(lambda: len(times(gateway, "postgres_restarted")) == restarts or None, gateway)  # noqa: B023
        before = [len(writer.acknowledged) for writer in writers]
        eventually(lambda: all_wrote(writers, before), gateway)
    finally:
        for writer in writers:
            writer.stopping.set()
        for writer in writers:
            writer.join()
    acknowledged = {task for writer in writers for task in writer.acknowledged}
    assert acknowledged <= stored(gateway)
    assert set.union(*(writer.codes for writer in writers)) <= {grpc.StatusCode.UNAVAILABLE}
    assert len(times(gateway, "postgres_ended")) == 2
    assert gateway.stop() == 0
    assert not gateway.processes()


def all_wrote(writers: list[Writer], before: list[int]) -> bool | None:
    return all(len(writer.acknowledged) > count + 5 for writer, count in zip(writers, before, strict=True)) or None


async def test_gateway_serves_again_within_five_seconds(start: Start) -> None:
    gateway = start()
    assert healthy(gateway.address)
    person = await new_person(gateway)
    with grpc.insecure_channel(gateway.address) as channel:
        os.kill(postmaster(gateway), signal.SIGKILL)
        since = time.monotonic()
        while True:
            try:
                TaskServiceStub(channel).ListTasks(ListTasksRequest(), metadata=person.headers, timeout=10)
                break
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert time.monotonic() - since < 5
        eventually(lambda: healthy(gateway.address) or None, gateway)


def test_restarted_postgres_ends_with_a_gateway_that_is_killed(start: Start) -> None:
    gateway = start()
    assert healthy(gateway.address)
    os.kill(postmaster(gateway), signal.SIGKILL)
    gateway.event("postgres_restarted")
    gateway.process.kill()
    gateway.process.wait()
    eventually(lambda: not gateway.processes() or None)


async def test_failed_restart_of_postgres_is_logged_with_the_reason_and_repeated(start: Start) -> None:
    gateway = start()
    assert healthy(gateway.address)
    configuration = gateway.folder / ".accord" / "postgres" / "data" / "postgresql.auto.conf"
    before = configuration.read_text()
    configuration.write_text("no_such_setting = 1\n")
    os.kill(postmaster(gateway), signal.SIGKILL)
    assert "no_such_setting" in str(gateway.event("postgres_not_restarted")["reason"])
    gateway.event("not_serving")
    configuration.write_text(before)
    gateway.event("postgres_restarted")
    eventually(lambda: healthy(gateway.address) or None, gateway)
    assert gateway.stop() == 0
    assert not gateway.processes()


def test_gateway_stopped_while_it_restarts_postgres_leaves_nothing_running(start: Start) -> None:
    gateway = start()
    assert healthy(gateway.address)
    configuration = gateway.folder / ".accord" / "postgres" / "data" / "postgresql.auto.conf"
    configuration.write_text("no_such_setting = 1\n")
    os.kill(postmaster(gateway), signal.SIGKILL)
    gateway.event("postgres_not_restarted")
    assert gateway.stop(signal.SIGINT) == 0
    assert not gateway.processes()
    assert "Traceback" not in gateway.output
