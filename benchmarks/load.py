"""Load, made by h2load: 8 connections with 4 calls at a time on each."""

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

CONNECTIONS, STREAMS = 8, 4


class Request(NamedTuple):
    path: str
    headers: Mapping[str, str]
    body: bytes | None = None
    http2: bool = False


class Volley(NamedTuple):
    """The result of many calls: `p50` and `p99` in milliseconds, `size` of the mean response in bytes."""

    seconds: float
    size: float
    p50: float
    p99: float


def require_h2load() -> None:
    if shutil.which("h2load") is None:
        raise SystemExit("The load is made by h2load, which is not here: apt install nghttp2-client")


def fire(port: int, requests: Sequence[Request], calls: int, folder: Path) -> Volley:
    """Divides calls and connections among the requests, all at once; one h2load knows one request. Ends the benchmark
    if a call returns anything but 200."""
    each, connections = calls // len(requests), CONNECTIONS // len(requests)
    files = [folder / f"h2load-{place}" for place in range(len(requests))]
    commands = [_command(port, *one, each, connections) for one in zip(requests, files, strict=True)]
    began = perf_counter()
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    printed = [process.communicate()[0] for process in running]
    seconds = perf_counter() - began
    sizes = [_mean_size(text, each) for text in printed]
    times = sorted(time for file in files for time in _times(file.with_suffix(".log")))
    return Volley(seconds, sum(sizes) / len(sizes), _at(times, 0.50), _at(times, 0.99))


def _command(port: int, request: Request, files: Path, calls: int, connections: int) -> list[str]:
    """Over HTTP/1.1, where a connection has one call at a time, each stream is a connection."""
    log, body = files.with_suffix(".log"), files.with_suffix(".body")
    log.unlink(missing_ok=True)
    command = ["h2load", "--threads=1", f"--requests={calls}", f"--log-file={log}"]
    if request.http2:
        command += [f"--clients={connections}", f"--max-concurrent-streams={STREAMS}"]
    else:
        command += [f"--clients={connections * STREAMS}", "--h1"]
    command += [f"--header={name}: {value}" for name, value in request.headers.items()]
    if request.body is not None:
        body.write_bytes(request.body)
        command.append(f"--data={body}")
    return [*command, f"http://127.0.0.1:{port}{request.path}"]


def _mean_size(printed: str, calls: int) -> float:
    good, data = re.search(r"(\d+) 2xx", printed), re.search(r"\((\d+)\) data", printed)
    if good is None or data is None or int(good[1]) != calls:
        raise SystemExit(f"Of {calls} calls not all succeeded:\n{printed}")
    return int(data[1]) / calls


def _times(log: Path) -> list[float]:
    return [int(line.split("\t")[2]) / 1000 for line in log.read_text().splitlines()]


def _at(times: Sequence[float], part: float) -> float:
    return times[int(len(times) * part)]
