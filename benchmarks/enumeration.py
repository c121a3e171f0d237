"""Whether the duration of a call reveals an account: every method that takes an address, over every kind of account.

The calls of all kinds take turns, in a changing order. Each e-mail address is used once, from a network address of its own.
"""

import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

import grpc
import psycopg
from argon2 import PasswordHasher, Type

from accord.accounts.v1.accounts_pb2 import RequestPasswordResetRequest, SignInRequest, SignUpRequest
from accord.accounts.v1.accounts_pb2_grpc import AccountServiceStub
from accord_db import migrate
from accord_postgres import EmbeddedPostgres
from benchmarks.targets import GATEWAY, gateway

CALLS: Final = 500
WARM_UP: Final = 20
MOST_DIFFERENCE: Final = 3.0  # milliseconds between the medians of two kinds
PASSWORD: Final = "this sentence is no password of an account"

# The other columns of an account's row: SQL for password_hash and banned_at.
KINDS: Final[Mapping[str, tuple[str, str] | None]] = {
    "known": ("%(hash)s", "NULL"),
    "unknown": None,
    "disabled": ("%(hash)s", "now()"),
    "provider-only": ("NULL", "NULL"),
}
METHODS: Final[Mapping[str, Callable[[AccountServiceStub, str], Callable[..., object]]]] = {
    "SignIn": lambda stub, email: _call(stub.SignIn, SignInRequest(email=email, password=PASSWORD)),
    "SignUp": lambda stub, email: _call(stub.SignUp, SignUpRequest(email=email, password=PASSWORD, display_name="Ada")),
    "RequestPasswordReset": lambda stub, email: _call(
        stub.RequestPasswordReset, RequestPasswordResetRequest(email=email)
    ),
}
Times = Mapping[str, Sequence[float]]


def main() -> int:
    with _running() as stub:
        results = {name: measure(stub, name) for name in METHODS}
    print(*table(results), sep="\n")
    return int(any(_difference(times) >= MOST_DIFFERENCE for times in results.values()))


def measure(stub: AccountServiceStub, method: str) -> Times:
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    outcomes = set()
    for number in range(CALLS + WARM_UP):
        for kind in random.sample(list(KINDS), len(KINDS)):
            call = METHODS[method](stub, address(method, kind, number))
            began = perf_counter()
            outcomes.add(call(metadata=[("x-forwarded-for", _somewhere())]))
            if number >= WARM_UP:
                times[kind].append((perf_counter() - began) * 1000)
    if len(outcomes) != 1:
        raise SystemExit(f"{method} has different outcomes: {outcomes}")
    return times


def address(method: str, kind: str, number: int) -> str:
    return f"{method}-{kind}-{number}@example.com".lower()


def table(results: Mapping[str, Times]) -> Iterator[str]:
    yield f"Medians of {CALLS} calls in ms, by kind of account:\n"
    yield "| | " + " | ".join(KINDS) + " | difference |"
    yield "|---|" + "---:|" * (len(KINDS) + 1)
    for method, times in results.items():
        medians = " | ".join(f"{median(times[kind]):.2f}" for kind in KINDS)
        yield f"| {method} | {medians} | **{_difference(times):.2f}** |"


def _difference(times: Times) -> float:
    medians = [median(each) for each in times.values()]
    return max(medians) - min(medians)


def _call(method: "grpc.UnaryUnaryMultiCallable", request: object) -> Callable[..., object]:
    def call(metadata: Sequence[tuple[str, str]]) -> object:
        try:
            return method(request, metadata=metadata).SerializeToString()
        except grpc.RpcError as error:
            return error.code(), error.details()

    return call


def _somewhere() -> str:
    return f"10.{random.randrange(256)}.{random.randrange(256)}.{random.randrange(1, 255)}"


@contextmanager
def _running() -> Iterator[AccountServiceStub]:
    with TemporaryDirectory(prefix="accord-") as folder, EmbeddedPostgres(Path(folder) / "postgres") as postgres:
        migrate.apply(postgres.dsn)
        _fill(postgres.dsn)
        proxies = {"TRUSTED_PROXIES": "127.0.0.1", "STATE_FOLDER": folder}
        with gateway(GATEWAY, postgres.dsn, Path(folder), proxies) as server:
            yield AccountServiceStub(grpc.insecure_channel(f"127.0.0.1:{server.port}"))


def _fill(dsn: str) -> None:
    password_hash = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1, type=Type.ID).hash("another one")
    with psycopg.connect(dsn, autocommit=True) as connection:
        for kind, columns in KINDS.items():
            if columns is None:
                continue
            insert = "INSERT INTO accounts (id, email, display_name, email_verified_at, password_hash, banned_at)"
            insert += f" VALUES (uuidv7(), %(email)s, 'Ada', now(), {columns[0]}, {columns[1]})"
            for method in METHODS:
                rows = [{"email": address(method, kind, n), "hash": password_hash} for n in range(CALLS + WARM_UP)]
                connection.cursor().executemany(insert, rows)


if __name__ == "__main__":
    sys.exit(main())
