import gc
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from accord_auth.session_cache import SessionCache
from accord_db.queries.sessions import LiveSession


def a_session(
    *,
    account_id: UUID | None = None,
    lifetime: timedelta = timedelta(hours=1),
    idle_lifetime: timedelta | None = None,
) -> LiveSession:
    now = datetime.now(UTC)
    return LiveSession(
        id=uuid4(),
        account_id=account_id or uuid4(),
        created_at=now,
        authenticated_at=now,
        expires_at=now + lifetime,
        idle_expires_at=now + (lifetime if idle_lifetime is None else idle_lifetime),
        use_is_due=False,
    )


def put(cache: SessionCache, key: bytes, session: LiveSession) -> LiveSession:
    cache.put(key, session, drops=cache.drops)
    return session


@pytest.fixture
def cache() -> SessionCache:
    return SessionCache(seconds=60, size=3)


def test_what_was_put_is_there(cache: SessionCache) -> None:
    session = put(cache, b"a", a_session())
    assert cache.get(b"a") is session
    assert cache.get(b"b") is None


def test_nothing_is_there_after_its_seconds() -> None:
    cache = SessionCache(seconds=0.05, size=3)
    put(cache, b"a", a_session())
    assert cache.get(b"a")
    time.sleep(0.06)
    assert cache.get(b"a") is None


def test_nothing_is_there_after_its_expiry(cache: SessionCache) -> None:
    put(cache, b"a", a_session(lifetime=timedelta(seconds=0.05)))
    put(cache, b"b", a_session(lifetime=timedelta(seconds=-1)))
    assert cache.get(b"a")
    assert cache.get(b"b") is None
    time.sleep(0.06)
    assert cache.get(b"a") is None


def test_one_that_may_idle_out_is_gone_while_there_is_time_to_put_that_off(cache: SessionCache) -> None:
    put(cache, b"a", a_session(idle_lifetime=timedelta(seconds=0.2)))
    put(cache, b"b", a_session(idle_lifetime=timedelta(seconds=-1)))
    assert cache.get(b"a")
    assert cache.get(b"b") is None
    time.sleep(0.11)
    assert cache.get(b"a") is None


def test_the_oldest_makes_room(cache: SessionCache) -> None:
    for key in (b"a", b"b", b"c", b"d"):
        put(cache, key, a_session())
    assert [key for key in (b"a", b"b", b"c", b"d") if cache.get(key)] == [b"b", b"c", b"d"]


def test_one_put_again_is_young_again(cache: SessionCache) -> None:
    for key in (b"a", b"b", b"a", b"c", b"d"):
        put(cache, key, a_session())
    assert cache.get(b"a")
    assert cache.get(b"b") is None
    assert len(cache) == 3


def test_those_too_old_are_gone_from_memory_with_the_next_put() -> None:
    cache = SessionCache(seconds=0.05, size=1_000)
    for n in range(100):
        put(cache, bytes([n]), a_session())
    time.sleep(0.06)
    put(cache, b"new", a_session())
    assert len(cache) == 1


def test_a_dropped_session_is_gone_and_no_other(cache: SessionCache) -> None:
    gone, stays = put(cache, b"a", a_session()), put(cache, b"b", a_session())
    cache.drop(gone.id)
    assert cache.get(b"a") is None
    assert cache.get(b"b") is stays


def test_all_sessions_of_a_dropped_account_are_gone_and_no_other(cache: SessionCache) -> None:
    account_id = uuid4()
    put(cache, b"a", a_session(account_id=account_id))
    put(cache, b"b", a_session(account_id=account_id))
    stays = put(cache, b"c", a_session())
    cache.drop(account_id)
    assert cache.get(b"a") is None
    assert cache.get(b"b") is None
    assert cache.get(b"c") is stays


@pytest.mark.parametrize("dropping", [
    lambda cache, session: cache.drop(session.id),
    lambda cache, session: cache.drop(session.account_id),
    lambda cache, session: cache.clear(),
])  # fmt: skip
def test_an_answer_older_than_a_drop_is_not_kept(
    cache: SessionCache, dropping: Callable[[SessionCache, LiveSession], None]
) -> None:
    session, drops = a_session(), cache.drops
    dropping(cache, session)
    cache.put(b"a", session, drops=drops)
    assert cache.get(b"a") is None


def test_nothing_stays_in_memory_of_what_came_and_went() -> None:
    cache = SessionCache(seconds=60, size=100)

    def come_and_go(times: int) -> None:
        for n in range(times):
            session = put(cache, b"%d" % n, a_session())
            if n % 3 == 0:
                cache.drop(session.id)

    come_and_go(1_000)
    tracemalloc.start()
    before = _memory()
    come_and_go(5_000)
    after = _memory()
    tracemalloc.stop()
    assert after - before < 1024 * 1024  # with what was dropped in the last second; 5,000 sessions would take 5 MiB
    assert len(cache) <= 100


def _memory() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def test_what_was_dropped_is_not_kept_again_for_a_while() -> None:
    """A lookup between a revocation and its commit still finds the session good."""
    cache, session = SessionCache(seconds=0.1, size=3), a_session()
    cache.drop(session.id)
    assert cache.get(b"a") is None
    put(cache, b"a", session)
    assert cache.get(b"a") is None
    other = a_session()
    cache.drop(other.account_id)
    put(cache, b"b", other)
    assert cache.get(b"b") is None
    time.sleep(0.12)
    put(cache, b"a", session)
    assert cache.get(b"a") is session
