"""Whether the server withstands overload: `make bench-overload`. Ends with 1 if a figure is missed.

It needs two free cores, for the server and for this client."""

import argparse
import asyncio
import shutil
import sys
from base64 import b64decode
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Final, NamedTuple

import uvloop
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode
from grpc_health.v1.health_pb2 import HealthCheckRequest

from accord_postgres import EmbeddedPostgres
from benchmarks.calling import Client, Ended, by_status, connect, keep_busy, offer, until_ended
from benchmarks.calls import GRPC, GRPC_PREFIX
from benchmarks.data import Databases, fill
from benchmarks.idle_connections import kib_per_connection
from benchmarks.load import Request
from benchmarks.processes import Server, Usage, busy_seconds
from benchmarks.targets import GATEWAY, ROOT, gateway
from benchmarks.verdicts import Figure, rows

CONNECTIONS: Final = 64
AT_A_TIME: Final = 64
HALF_SENT_CONNECTIONS, HALF_SENT_CALLS = 20, 100
IDLE_CONNECTIONS: Final = 5000
PROBE_SECONDS: Final = 0.05
OK, RESOURCE_EXHAUSTED = 0, StatusCode.RESOURCE_EXHAUSTED.value[0]


class Round(NamedTuple):
    """Calls a second that succeeded: at best, and when twice as many were offered. And how the calls of the overload ended."""

    peak: float
    goodput: float
    ended: Sequence[Ended]
    health: Sequence[Ended]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of which the median counts")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each part of a round lasts")
    parser.add_argument("--server", choices=("accord", "grpcio"), default="accord")
    chosen = parser.parse_args()
    folder = ROOT / ".accord" / "bench-overload"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    figures = list(measure(chosen, folder))
    shutil.rmtree(folder)
    print("\n" + "\n".join(rows(figures)))
    sys.exit(any(figure.missed for figure in figures))


def measure(chosen: argparse.Namespace, folder: Path) -> Iterator[Figure]:
    print("Starting PostgreSQL and filling it …", flush=True)
    with EmbeddedPostgres(folder / "postgres") as postgres:
        databases = fill(postgres.dsn)
        with gateway(GATEWAY, databases.accord, folder, {"SERVER": chosen.server}) as server:
            requests = _requests(databases)
            rounds = uvloop.run(_rounds(server, requests, chosen.rounds, chosen.seconds))
            yield from _overload_figures(rounds)
            yield from uvloop.run(_half_sent(server.port, requests))
        if chosen.server == "accord":
            yield from _idle(databases, folder)


def _idle(databases: Databases, folder: Path) -> Iterator[Figure]:
    for version in ("1.1", "2"):
        with gateway(GATEWAY, databases.accord, folder) as server:
            kib = kib_per_connection(server.port, server.pid, IDLE_CONNECTIONS, http2=version == "2")
            yield Figure(f"{IDLE_CONNECTIONS:,} idle HTTP/{version} connections, each", kib, 12, " KiB")


def _requests(databases: Databases) -> list[Request]:
    """Of all people: a single one would reach their rate limit."""
    return [GRPC["GetTask"].request(person) for person in databases.accord_people]


async def _rounds(server: Server, requests: Sequence[Request], rounds: int, seconds: float) -> list[Round]:
    port = server.port
    clients = await connect(port, CONNECTIONS)
    await keep_busy(clients, requests, AT_A_TIME, 2.0)
    measured = []
    for number in range(rounds):
        peak = _goodput(await keep_busy(clients, requests, AT_A_TIME, seconds), seconds)
        probing = asyncio.create_task(_probe_health(port, seconds))
        lagging = asyncio.create_task(_lag(seconds))
        before = _cpu_seconds(server)
        ended = await offer(clients, requests, 2 * peak, seconds)
        used = [after - began for began, after in zip(before, _cpu_seconds(server), strict=True)]
        measured.append(Round(peak, _goodput(ended, seconds), ended, await probing))
        print(f"round {number + 1}/{rounds}: {_shown(measured[-1])}", flush=True)
        print(
            f"  cores that worked: {used[0] / seconds:.2f} for the server, {used[1] / seconds:.2f} for this client, "
            f"{used[2] / seconds:.2f} in all; the client was late by up to {await lagging * 1000:.0f} ms (p99)",
            flush=True,
        )
    return measured


def _cpu_seconds(server: Server) -> tuple[float, float, float]:
    """Of the server, of this client, and of everything on this machine. A server that had less than most of a core was not at its
    capacity: the client or other programs were."""
    return Usage().seconds(server.pid), process_time(), busy_seconds()


async def _lag(seconds: float) -> float:
    """How late the event loop of this client is: a busy machine, not the server."""
    late = []
    until = perf_counter() + seconds
    while (began := perf_counter()) < until:
        await asyncio.sleep(PROBE_SECONDS / 10)
        late.append(perf_counter() - began - PROBE_SECONDS / 10)
    return sorted(late)[int(len(late) * 0.99)]


def _goodput(ended: Sequence[Ended], seconds: float) -> float:
    return by_status(ended)[OK] / seconds


def _shown(each: Round) -> str:
    return (
        f"peak {each.peak:.0f} calls/s; of {2 * each.peak:.0f} offered, {each.goodput:.0f} succeeded; "
        f"statuses {dict(by_status(each.ended))}; refused after {_p99(_refused(each.ended)) * 1000:.0f} ms at most, health "
        f"after {_p99(each.health) * 1000:.0f} ms (p99)"
    )


async def _probe_health(port: int, seconds: float) -> list[Ended]:
    (client,) = await connect(port, 1)
    body = HealthCheckRequest().SerializeToString()
    headers = {"content-type": "application/grpc", "te": "trailers"}
    request = Request("/grpc.health.v1.Health/Check", headers, GRPC_PREFIX.pack(0, len(body)) + body, http2=True)
    ended: list[Ended] = []
    for _ in range(int(seconds / PROBE_SECONDS)):
        client.call(request, ended.append)
        await asyncio.sleep(PROBE_SECONDS)
    await until_ended([client])
    client.close()
    return ended


def _overload_figures(rounds: Sequence[Round]) -> Iterator[Figure]:
    ended = [each for one in rounds for each in one.ended]
    refused = _refused(ended)
    others = [each for each in ended if each.status not in (OK, RESOURCE_EXHAUSTED)]
    failed_checks = [each for one in rounds for each in one.health if each.status != OK]
    yield Figure(
        "goodput under twice the capacity : peak", median(one.goodput / one.peak for one in rounds), 0.8, least=True
    )
    yield Figure("calls refused with RESOURCE_EXHAUSTED, thousand", len(refused) / 1000, 0.001, least=True)
    yield Figure("the same, 99 % within", _p99(refused) * 1000, 50, " ms")
    yield Figure("the same, without RetryInfo", sum(not has_retry_info(each) for each in refused), 0)
    yield Figure("calls with another status, per thousand", 1000 * len(others) / len(ended), 1)
    yield Figure("health checks that failed meanwhile", len(failed_checks), 0)


def _refused(ended: Sequence[Ended]) -> list[Ended]:
    return [each for each in ended if each.status == RESOURCE_EXHAUSTED]


def has_retry_info(ended: Ended) -> bool:
    status = Status.FromString(b64decode(ended.details + b"=" * (-len(ended.details) % 4)))
    return any(detail.Is(RetryInfo.DESCRIPTOR) for detail in status.details)


def _p99(ended: Sequence[Ended]) -> float:
    times = sorted(each.seconds for each in ended)
    return times[int(len(times) * 0.99)] if times else 0.0


async def _half_sent(port: int, requests: Sequence[Request]) -> list[Figure]:
    """Calls of another client, while the messages of many calls do not arrive."""
    holding, (client,) = await connect(port, HALF_SENT_CONNECTIONS), await connect(port, 1)
    held: list[Ended] = []
    for each in holding:
        _hold(each, requests, held)
    await asyncio.sleep(0.2)
    ended = await keep_busy([client], requests, 4, 1.0)
    print(
        f"half-sent: {len(held)} of {HALF_SENT_CONNECTIONS * HALF_SENT_CALLS} ended, others {dict(by_status(ended))}",
        flush=True,
    )
    for each in (*holding, client):
        each.close()
    failed = len(ended) - by_status(ended)[OK]
    return [
        Figure("calls that failed beside 2,000 half-sent ones", failed if ended else 1, 0),
        Figure("the same, 99 % within", _p99(ended) * 1000, 100, " ms"),
    ]


def _hold(client: Client, requests: Sequence[Request], held: list[Ended]) -> None:
    for number in range(HALF_SENT_CALLS):
        client.call(requests[number % len(requests)], held.append, sends_message=False)


if __name__ == "__main__":
    main()
