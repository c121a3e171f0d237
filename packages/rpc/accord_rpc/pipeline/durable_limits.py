"""What one call is counted against, and under which names."""

from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from typing import NamedTuple
from uuid import UUID

from accord.errors.v1.errors_pb2 import Reason
from accord.policy.v1.policy_pb2 import (
    CREDENTIAL_API_KEY,
    RATE_LIMIT_KEY_ACCOUNT,
    RATE_LIMIT_KEY_CALLER,
    RATE_LIMIT_KEY_ORGANIZATION,
    RATE_LIMIT_KEY_PEER,
    RateLimit,
    RateLimitKey,
)
from accord_db.engine.database import Database
from accord_db.engine.errors import DatabaseError
from accord_db.queries import rate_limits
from accord_db.queries.rate_limits import Counted, Limit
from accord_rpc.call import call
from accord_rpc.caller import Caller, caller
from accord_rpc.client_address import peer_network
from accord_rpc.errors import RpcError
from accord_rpc.policy import BY_ACCOUNT


class Subject(NamedTuple):
    """Whose calls are counted together: as the caller is told, which tells nothing new, and as it is counted."""

    told: str
    counted: str


def subject(key: RateLimitKey.ValueType, account: str = "") -> Subject:
    """`account` is the one that is tried, where the key asks for it."""
    if key == RATE_LIMIT_KEY_CALLER:
        return Subject(told := _who(caller()), told)
    if key == RATE_LIMIT_KEY_ORGANIZATION:
        return Subject(told := f"organization:{caller().active_organization_id}", told)
    if key == RATE_LIMIT_KEY_ACCOUNT:
        return Subject("account", f"account:{account}")
    peer = f"peer:{peer_network(call().peer)}"
    if key == RATE_LIMIT_KEY_PEER:
        return Subject(peer, peer)
    return Subject(f"account and {peer}", f"account:{account} and {peer}")


def _who(caller: Caller) -> str:
    if caller.credential == CREDENTIAL_API_KEY:
        return f"api_key:{caller.credential_id}"
    return f"account:{caller.account_id}"


def exceeded(subject: Subject, seconds: float) -> RpcError:
    return RpcError(Reason.REASON_RATE_LIMITED, retry_after=max(0.1, seconds), quota=subject.told)


class DurableLimit:
    """A limit of one method that is counted in the database, where its subjects are known by hashes alone."""

    def __init__(self, path: str, limit: RateLimit) -> None:
        self.key = limit.key
        self.by_account = limit.key in BY_ACCOUNT
        self.failures_only = limit.failures_only
        self._count = limit.count
        self._seconds = limit.window.seconds
        # The limits of a method differ in any of these; one that is changed begins anew.
        failures = " failures" if limit.failures_only else ""
        self._prefix = sha256(f"{path} {limit.key} {limit.count}/{limit.window.seconds}{failures}\0".encode())

    def of(self, subject: Subject) -> Limit:
        digest = self._prefix.copy()
        digest.update(subject.counted.encode())
        return Limit(digest.digest(), self._count, self._seconds)


class DurableCounts:
    """The counts of one call. `at_account` are the limits that wait until its handler knows the account."""

    def __init__(self, database: Database, at_account: Sequence[DurableLimit]) -> None:
        self._database = database
        self._at_account = at_account
        self._failures: list[Counted] = []
        self._accounts: set[UUID] = set()

    @property
    def is_complete(self) -> bool:
        return bool(self._accounts) or not self._at_account

    async def count_account(self, account_id: UUID) -> None:
        if not self._at_account:
            raise RuntimeError("limit_account() was called in a method without a limit that waits for it")
        if self._database.in_transaction:
            raise RuntimeError("limit_account() was called in a transaction, whose roll-back would undo the count")
        if account_id not in self._accounts:  # a handler that lost a conflict is run again, and calls again
            await self.count(self._at_account, str(account_id))
            self._accounts.add(account_id)

    async def count(self, limits: Sequence[DurableLimit], account: str) -> None:
        """Raises Refused if any of the limits is used up, by the name of the one that lasts longest."""
        subjects = [subject(limit.key, account) for limit in limits]
        asked = [limit.of(subject) for limit, subject in zip(limits, subjects, strict=True)]
        counted, used_up = await rate_limits.count_call(self._database, limits=asked)
        of_failures = {each.key for each, limit in zip(asked, limits, strict=True) if limit.failures_only}
        self._failures += [each for each in counted if each.key in of_failures]
        if used_up:
            await self.take_back()  # what is refused here has tried nothing
            last = max(used_up, key=lambda each: each.seconds)
            raise exceeded(subjects[[each.key for each in asked].index(last.key)], last.seconds)

    async def take_back(self) -> None:
        """The call did not fail."""
        failures, self._failures = self._failures, []
        if failures:
            with suppress(DatabaseError):  # it stays counted; how the call ended is settled
                await rate_limits.take_back(self._database, counted=failures)
