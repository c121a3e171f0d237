"""Reloads a gateway again and again while clients call it, and counts errors: `python -m benchmarks.reload --reloads 100`.

Half of the clients retry UNAVAILABLE over gRPC; the others use HTTP/2 and retry nothing."""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any
from uuid import UUID

from benchmarks.processes import free_port, resident_mib, serving
from tests.factories import Person
from tests.gateway.http2_caller import Http2Caller, let_all_call
from tests.gateway.retrying_caller import RetryingCaller

ACCORD = (sys.executable, "-m", "accord_gateway")
HTTP2_CALLERS, RETRYING_CALLERS = 4, 4
PAUSE = 0.05  # seconds after each call, so that clients do not take the time of the workers that start
PASSWORD = "this sentence is a password for one benchmark"  # of an account that lives for minutes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reloads", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=3600.0, help="the time after which no further reload begins")
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args()
    with TemporaryDirectory(prefix="accord-reload-") as folder:
        port = free_port()
        settings = {"SERVER": "accord", "PORT": str(port), "METRICS_PORT": "0", "WORKERS": str(chosen.workers)}
        with serving((*ACCORD, "serve"), os.environ | settings, port, Path(folder)) as server:
            errors = asyncio.run(measure(f"127.0.0.1:{port}", Path(folder), chosen.reloads, chosen.seconds))
            print(f"The supervisor holds {resident_mib(server.pid):.0f} MiB.")
    return int(bool(errors))


async def measure(address: str, folder: Path, reloads: int, limit: float) -> int:
    """Returns the number of errors."""
    person = await asyncio.to_thread(signed_in, f"http://{address}/v1")
    retrying = [RetryingCaller(address, person, pause=PAUSE) for _ in range(RETRYING_CALLERS)]
    direct = [Http2Caller(address, "/v1/tasks", dict(person.headers), pause=PAUSE) for _ in range(HTTP2_CALLERS)]
    for caller in (*retrying, *direct):
        caller.start()
    try:
        seconds, until = [], monotonic() + limit
        while len(seconds) < reloads and monotonic() < until:
            seconds.append(await reload_once(folder, direct))
        await let_all_call(direct)
    finally:
        await asyncio.gather(*(caller.stop() for caller in direct))
        await asyncio.to_thread(stop, retrying)
    print(f"{len(seconds)} reloads in {median(seconds):.2f} s each (at most {max(seconds):.2f} s)")
    print(f"{sum(caller.responses for caller in retrying):,} calls of gRPC clients that retry UNAVAILABLE")
    connections = sum(caller.connections for caller in direct)
    print(
        f"{sum(caller.responses for caller in direct):,} calls over HTTP/2 without retries, {connections} connections"
    )
    errors = [error for caller in (*retrying, *direct) for error in caller.errors]
    print(f"{len(errors)} errors", *errors[:10], sep="\n")
    return len(errors)


async def reload_once(folder: Path, direct: list[Http2Caller]) -> float:
    """Returns the seconds that the command took."""
    await let_all_call(direct)
    began = monotonic()
    command = await asyncio.create_subprocess_exec(*ACCORD, "reload", cwd=folder, stdout=subprocess.DEVNULL)
    if await command.wait():
        raise SystemExit("A reload failed.")
    return monotonic() - began


def stop(callers: Sequence[RetryingCaller]) -> None:
    for caller in callers:
        caller.stopping.set()
    for caller in callers:
        caller.join()


def signed_in(url: str) -> Person:
    credentials = {"email": "ada@example.com", "password": PASSWORD}
    post(f"{url}/accounts", credentials | {"displayName": "Ada"})
    token = post(f"{url}/sessions", credentials)["sessionToken"]
    return Person(UUID(int=0), UUID(int=0), credentials["email"], token)  # the callers use the token alone


def post(url: str, body: Mapping[str, str]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return json.load(response)


if __name__ == "__main__":
    sys.exit(main())
