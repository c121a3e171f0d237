"""Counts of durable rate limits, and the subjects that all rate limits count."""

from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from typing import NamedTuple
from uuid import UUID

from accord.errors.v1.errors_pb2 import Reason
from accord.policy.v1.policy_pb2 import (
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
from accord_rpc.caller import caller
from accord_rpc.client_address import peer_network
from accord_rpc.errors import RpcError
from accord_rpc.policy import BY_ACCOUNT


class Subject(NamedTuple):
    """Whose calls are counted together. `shown` goes to the caller and reveals nothing new; `counted` is the key."""

    shown: str
    counted: str


def subject(key: RateLimitKey.ValueType, account: str = "") -> Subject:
    """`account` names the account that the call tries to enter, for keys that count it."""
    if key == RATE_LIMIT_KEY_CALLER:
        return Subject(shown := caller().rate_limit_key, shown)
    if key == RATE_LIMIT_KEY_ORGANIZATION:
        return Subject(shown := f"organization:{caller().active_organization_id}", shown)
    if key == RATE_LIMIT_KEY_ACCOUNT:
        return Subject("account", f"account:{account}")
    peer = f"peer:{peer_network(call().peer)}"
    if key == RATE_LIMIT_KEY_PEER:
        return Subject(peer, peer)
    return Subject(f"account and {peer}", f"account:{account} and {peer}")


def exceeded(subject: Subject, seconds: float) -> RpcError:
    return RpcError(Reason.REASON_RATE_LIMITED, retry_after=max(0.1, seconds), quota=subject.shown)


class DurableLimit:
    """A limit of one method that is counted in the database, which stores subjects as hashes."""

    def __init__(self, path: str, limit: RateLimit) -> None:
        self.key = limit.key
        self.by_account = limit.key in BY_ACCOUNT
        self.failures_only = limit.failures_only
        self._count = limit.count
        self._seconds = limit.window.seconds
        # Identifies the limit among those of its method. A changed limit starts from zero.
        failures = " failures" if limit.failures_only else ""
        self._prefix = sha256(f"{path} {limit.key} {limit.count}/{limit.window.seconds}{failures}\0".encode())

    def of(self, subject: Subject) -> Limit:
        digest = self._prefix.copy()
        digest.update(subject.counted.encode())
        return Limit(digest.digest(), self._count, self._seconds)


class DurableCounts:
    """The counts of one call. `at_account` are the limits that are counted once the handler knows the account."""

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
            raise RuntimeError("limit_account() was called in a method without a durable limit by account")
        if self._database.in_transaction:
            raise RuntimeError("limit_account() was called in a transaction: its roll-back would undo the count")
        if account_id not in self._accounts:  # a handler that runs again after a conflict calls it again
            await self.count(self._at_account, str(account_id))
            self._accounts.add(account_id)

    async def count(self, limits: Sequence[DurableLimit], account: str) -> None:
        """Raises RATE_LIMITED if a limit is used up, for the one with the longest wait."""
        subjects = [subject(limit.key, account) for limit in limits]
        limits_of = [limit.of(subject) for limit, subject in zip(limits, subjects, strict=True)]
        counted, used_up = await rate_limits.count_call(self._database, limits=limits_of)
        of_failures = {each.key for each, limit in zip(limits_of, limits, strict=True) if limit.failures_only}
        self._failures += [each for each in counted if each.key in of_failures]
        if used_up:
            await self.take_back()  # the refused call has tried nothing
            last = max(used_up, key=lambda each: each.seconds)
            raise exceeded(subjects[[each.key for each in limits_of].index(last.key)], last.seconds)

    async def take_back(self) -> None:
        """Removes the counts of failures: the call succeeded, or tried nothing."""
        failures, self._failures = self._failures, []
        if failures:
            with suppress(DatabaseError):  # it stays counted; the outcome of the call does not change
                await rate_limits.refund_calls(self._database, counted=failures)
