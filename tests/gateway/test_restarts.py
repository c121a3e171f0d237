"""Callers that use the documented retry policy see no error while gateways and workers restart."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from accord.tasks.v1.tasks_pb2 import ListTasksRequest
from accord.tasks.v1.tasks_pb2_grpc import TaskServiceStub
from accord_db.engine.database import Database
from tests.factories import Person, signed_in_person
from tests.gateway.conftest import Start, eventually
from tests.gateway.retrying_caller import RetryingCaller
from tests.ports import free_port

RESTARTS = 3
CALLERS = 4


@contextmanager
def callers(address: str, person: Person, *, pause: float = 0) -> Iterator[list[RetryingCaller]]:
    """Fails if a caller has seen an error."""
    callers = [RetryingCaller(address, person, pause=pause) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    try:
        yield callers
    finally:
        for caller in callers:
            caller.stopping.set()
        for caller in callers:
            caller.join()
    assert [error for caller in callers for error in caller.errors] == []


def let_all_call(callers: list[RetryingCaller]) -> None:
    before = [caller.responses for caller in callers]
    eventually(
        lambda: all(caller.responses > count + 20 for caller, count in zip(callers, before, strict=True)) or None
    )


async def test_callers_that_retry_see_no_error_over_restarts(
    start: Start, database_url: str, database: Database
) -> None:
    person, port = await signed_in_person(database), free_port()
    gateway = start(DATABASE_URL=database_url, PORT=port)
    with callers(gateway.address, person) as calling:
        for _ in range(RESTARTS):
            let_all_call(calling)
            assert gateway.stop() == 0
            gateway = start(DATABASE_URL=database_url, PORT=port)
        let_all_call(calling)


async def test_callers_that_retry_see_no_error_when_workers_stop(
    start: Start, database_url: str, database: Database
) -> None:
    person = await signed_in_person(database)
    gateway = start(DATABASE_URL=database_url, WORKERS=2)
    with callers(gateway.address, person) as calling:
        for worker in gateway.workers():
            let_all_call(calling)
            os.kill(worker, signal.SIGTERM)
            eventually(lambda: worker not in gateway.workers() or None)  # noqa: B023  # called at once
        let_all_call(calling)
    assert gateway.stop() == 0


async def test_a_call_during_shutdown_is_unavailable_with_a_retry_delay(
    start: Start, database_url: str, database: Database
) -> None:
    """From grpcio. Our own server accepts such a call, or no connection (see test_reload.py)."""
    person = await signed_in_person(database)
    gateway = start(SERVER="grpcio", DATABASE_URL=database_url)
    with grpc.insecure_channel(gateway.address) as channel:
        tasks = TaskServiceStub(channel)
        tasks.ListTasks(ListTasksRequest(), metadata=person.headers)
        gateway.process.send_signal(signal.SIGTERM)
        gateway.event("stopping")
        with pytest.raises(grpc.RpcError) as error:
            tasks.ListTasks(ListTasksRequest(), metadata=person.headers)
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE
    trailers = {datum.key: datum.value for datum in error.value.trailing_metadata()}
    info, retry = ErrorInfo(), RetryInfo()
    details = Status.FromString(trailers["grpc-status-details-bin"]).details
    assert details[0].Unpack(info)
    assert details[1].Unpack(retry)
    assert info.reason == "UNAVAILABLE"
    assert retry.retry_delay.seconds == 1
    assert gateway.process.wait(10) == 0
