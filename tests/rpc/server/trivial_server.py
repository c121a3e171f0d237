"""A server with a trivial application, as a program: serves on the socket whose descriptor is its argument, until its standard input ends."""

import asyncio
import gc
import json
import socket
import sys
from pathlib import Path
from resource import RLIMIT_NOFILE, getpagesize, getrlimit, setrlimit

from accord_gateway import event_loop
from accord_rpc.server.exchange import Exchange
from accord_rpc.server.limits import ConnectionLimits
from accord_rpc.server.server import Server


class Application:
    def __init__(self) -> None:
        self.server: Server | None = None
        self.served = 0

    async def __call__(self, exchange: Exchange) -> None:
        self.served += 1
        if exchange.target.startswith(b"/figures"):
            exchange.respond(200, (), json.dumps(self._figures()).encode())
        elif exchange.target.startswith(b"/stream"):
            await stream(exchange)
        elif exchange.target.startswith(b"/unread"):
            exchange.respond(401, ((b"content-type", b"text/plain"),), b"denied")
        else:
            await echo(exchange)

    def _figures(self) -> dict[str, int]:
        assert self.server is not None
        gc.collect()
        return {
            "served": self.served,
            "connections": self.server.connections,
            "exchanges": self.server.exchanges,
            "tasks": len(asyncio.all_tasks()),
            "objects": len(gc.get_objects()),
            "resident_kib": int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize() // 1024,
        }


async def echo(exchange: Exchange) -> None:
    parts = []
    while (part := await exchange.receive()) is not None:
        parts.append(part)
    exchange.respond(200, ((b"content-type", b"text/plain"),), b"".join(parts), ((b"x-trailer", b"1"),))


async def stream(exchange: Exchange) -> None:
    exchange.start(200, ((b"content-type", b"text/plain"),))
    while (part := await exchange.receive()) is not None:
        await exchange.send(part)
    for _ in range(4):
        await exchange.send(bytes(20_000))
    exchange.finish(b"end", ((b"x-trailer", b"1"),))


async def main() -> None:
    application = Application()
    server = application.server = Server(application, limits=ConnectionLimits(connections=50_000))
    await server.start([socket.socket(fileno=int(sys.argv[1]))])
    ended = asyncio.Event()
    server.loop.add_reader(sys.stdin, ended.set)
    await ended.wait()
    server.loop.remove_reader(sys.stdin)
    await server.stop(1.0)


if __name__ == "__main__":
    setrlimit(RLIMIT_NOFILE, (getrlimit(RLIMIT_NOFILE)[1],) * 2)
    event_loop.run(main())
