import gc
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from uuid import UUID, uuid4

import pytest

from accord.policy.v1.policy_pb2 import CREDENTIAL_SESSION
from accord_auth import credential_cache
from accord_auth.credential_cache import CallerCache
from accord_auth.credentials import Authenticated
from accord_db.engine.clock import DatabaseClock
from accord_rpc.caller import Caller

CLOCK = DatabaseClock()
CLOCK.set(datetime.now(UTC), sent_at=time.monotonic())


def a_credential(*, account_id: UUID | None = None, kept: timedelta | None = timedelta(hours=1)) -> Authenticated:
    now = datetime.now(UTC)
    organization_id = uuid4()
    caller = Caller(
        account_id=account_id or uuid4(),
        credential=CREDENTIAL_SESSION,
        credential_id=uuid4(),
        authenticated_at=now,
        organization_id=organization_id,
    )
    ids = (caller.credential_id, caller.account_id, organization_id)
    return Authenticated(caller, ids, kept_until=now + kept if kept is not None else None)


def put(cache: CallerCache, key: bytes, found: Authenticated) -> Authenticated:
    cache.put(key, found, drops=cache.drops)
    return found


@pytest.fixture
def cache() -> CallerCache:
    return CallerCache(CLOCK, seconds=60, size=3)


def test_stored_result_is_returned(cache: CallerCache) -> None:
    found = put(cache, b"a", a_credential())
    assert cache.get(b"a") is found
    assert cache.get(b"b") is None


def test_result_expires_after_the_cache_time() -> None:
    cache = CallerCache(CLOCK, seconds=0.05, size=3)
    put(cache, b"a", a_credential())
    assert cache.get(b"a")
    time.sleep(0.06)
    assert cache.get(b"a") is None


def test_results_that_were_stored_at_once_do_not_expire_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their lookups would delay all other calls."""
    cache = CallerCache(CLOCK, seconds=60, size=100)
    now = time.monotonic()
    monkeypatch.setattr(credential_cache, "monotonic", lambda: now)
    hashes = [sha256(bytes([n])).digest() for n in range(100)]
    for token_hash in hashes:
        put(cache, token_hash, a_credential())

    def left() -> int:
        return sum(cache.get(token_hash) is not None for token_hash in hashes)

    found = []
    for seconds in (44.9, 52.5, 60.1):
        monkeypatch.setattr(credential_cache, "monotonic", lambda: now + seconds)  # noqa: B023  # called at once
        found.append(left())
    assert (found[0], found[2]) == (100, 0)
    assert 20 < found[1] < 80


def test_result_expires_at_its_own_time(cache: CallerCache) -> None:
    put(cache, b"a", a_credential(kept=timedelta(seconds=0.05)))
    put(cache, b"b", a_credential(kept=timedelta(seconds=-1)))
    assert cache.get(b"a")
    assert cache.get(b"b") is None
    time.sleep(0.06)
    assert cache.get(b"a") is None


def test_result_without_its_own_time_expires_after_the_cache_time() -> None:
    cache = CallerCache(CLOCK, seconds=0.05, size=3)
    put(cache, b"a", a_credential(kept=None))
    assert cache.get(b"a")
    time.sleep(0.06)
    assert cache.get(b"a") is None


def test_oldest_result_makes_room(cache: CallerCache) -> None:
    for key in (b"a", b"b", b"c", b"d"):
        put(cache, key, a_credential())
    assert [key for key in (b"a", b"b", b"c", b"d") if cache.get(key)] == [b"b", b"c", b"d"]


def test_result_stored_again_is_the_newest(cache: CallerCache) -> None:
    for key in (b"a", b"b", b"a", b"c", b"d"):
        put(cache, key, a_credential())
    assert cache.get(b"a")
    assert cache.get(b"b") is None
    assert len(cache) == 3


def test_expired_results_are_freed_when_another_is_stored() -> None:
    cache = CallerCache(CLOCK, seconds=0.05, size=1_000)
    for n in range(100):
        put(cache, bytes([n]), a_credential())
    time.sleep(0.06)
    put(cache, b"new", a_credential())
    assert len(cache) == 1


def test_drop_of_a_credential_removes_it_alone(cache: CallerCache) -> None:
    gone, stays = put(cache, b"a", a_credential()), put(cache, b"b", a_credential())
    cache.drop(gone.caller.credential_id)
    assert cache.get(b"a") is None
    assert cache.get(b"b") is stays


def test_drop_of_an_account_removes_all_of_its_credentials_alone(cache: CallerCache) -> None:
    account_id = uuid4()
    put(cache, b"a", a_credential(account_id=account_id))
    put(cache, b"b", a_credential(account_id=account_id))
    stays = put(cache, b"c", a_credential())
    cache.drop(account_id)
    assert cache.get(b"a") is None
    assert cache.get(b"b") is None
    assert cache.get(b"c") is stays


@pytest.mark.parametrize("dropping", [
    lambda cache, found: cache.drop(found.caller.credential_id),
    lambda cache, found: cache.drop(found.caller.account_id),
    lambda cache, found: cache.drop(found.caller.organization_id),
    lambda cache, found: cache.clear(),
])  # fmt: skip
def test_result_read_before_a_drop_is_not_cached(
    cache: CallerCache, dropping: Callable[[CallerCache, Authenticated], None]
) -> None:
    found, drops = a_credential(), cache.drops
    dropping(cache, found)
    cache.put(b"a", found, drops=drops)
    assert cache.get(b"a") is None


def test_cache_does_not_leak_memory() -> None:
    cache = CallerCache(CLOCK, seconds=60, size=100)

    def come_and_go(times: int) -> None:
        for n in range(times):
            found = put(cache, b"%d" % n, a_credential())
            if n % 3 == 0:
                cache.drop(found.caller.credential_id)

    come_and_go(1_000)
    tracemalloc.start()
    before = _memory()
    come_and_go(5_000)
    after = _memory()
    tracemalloc.stop()
    assert after - before < 1024 * 1024  # includes the drops of the last second; 5,000 entries would take 5 MiB
    assert len(cache) <= 100


def _memory() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def test_dropped_credential_is_not_cached_again_for_the_cache_time() -> None:
    """A lookup between a drop and the commit of its revocation still finds the credential valid."""
    cache, found = CallerCache(CLOCK, seconds=0.1, size=3), a_credential()
    cache.drop(found.caller.credential_id)
    assert cache.get(b"a") is None
    put(cache, b"a", found)
    assert cache.get(b"a") is None
    other = a_credential()
    cache.drop(other.caller.account_id)
    put(cache, b"b", other)
    assert cache.get(b"b") is None
    time.sleep(0.12)
    put(cache, b"a", found)
    assert cache.get(b"a") is found
