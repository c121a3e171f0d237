"""Work that blocks, in a thread that holds up nobody's end."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import TypeVarTuple

Ts = TypeVarTuple("Ts")


async def in_thread(work: Callable[[*Ts], None], *arguments: *Ts) -> None:
    """Like asyncio.to_thread, whose threads a process waits for when it ends: half a minute for a name that DNS does not
    answer. This one is left behind, also when we are cancelled."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        error = None
        try:
            work(*arguments)
        except BaseException as raised:  # noqa: BLE001  # whatever it is, it is raised where it is waited for
            error = raised
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, error)

    Thread(target=run, name="mail", daemon=True).start()
    await done
