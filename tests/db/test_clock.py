"""The database's clock, estimated by a process between two measurements."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from accord_db.engine.clock import DatabaseClock
from accord_db.engine.database import Database
from accord_db.engine.ids import first_uuid7, uuid7_at

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
CLOCK_TIMESTAMP = select(func.clock_timestamp())


class Elapsed:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def elapsed() -> Elapsed:
    return Elapsed()


@pytest.fixture
def clock(elapsed: Elapsed) -> DatabaseClock:
    clock = DatabaseClock(elapsed)
    clock.set(NOON, sent_at=1000.0)
    return clock


def test_time_advances_with_the_monotonic_clock(clock: DatabaseClock, elapsed: Elapsed) -> None:
    assert clock.now() == NOON
    elapsed.seconds += 90
    assert clock.now() == NOON + timedelta(seconds=90)
    assert clock.until(NOON + timedelta(seconds=100)) == 10
    assert clock.until(NOON) == -90


def test_clock_is_not_behind_after_a_slow_response(clock: DatabaseClock, elapsed: Elapsed) -> None:
    sent_at = elapsed.seconds
    elapsed.seconds += 2  # the database may have read its clock at any moment of these
    clock.set(NOON, sent_at=sent_at)
    assert clock.now() == NOON + timedelta(seconds=2)


@pytest.mark.parametrize("step", [timedelta(hours=1), timedelta(minutes=-11)])
def test_measurement_follows_a_step_of_the_database_s_clock(
    clock: DatabaseClock, elapsed: Elapsed, step: timedelta
) -> None:
    elapsed.seconds += 1
    clock.set(NOON + step, sent_at=elapsed.seconds)
    assert clock.now() == NOON + step


def test_unmeasured_clock_raises() -> None:
    with pytest.raises(RuntimeError, match=r"Database\.connect measures it"):
        DatabaseClock().now()


async def test_connecting_and_pinging_measure_the_clock_of_the_database(database: Database) -> None:
    for ping in (False, True):
        await (database.ping() if ping else asyncio.sleep(0.2))
        before = await database.fetch_one(CLOCK_TIMESTAMP)
        now = database.clock.now()
        after = await database.fetch_one(CLOCK_TIMESTAMP)
        assert before is not None
        assert after is not None
        assert before - timedelta(milliseconds=5) <= now <= after + timedelta(seconds=1)


def test_id_contains_the_given_time() -> None:
    ids = [uuid7_at(NOON) for _ in range(100)]
    assert len(set(ids)) == 100
    assert {id_.version for id_ in ids} == {7}
    assert all(first_uuid7(NOON) <= id_ < first_uuid7(NOON + timedelta(milliseconds=1)) for id_ in ids)
