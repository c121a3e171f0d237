"""A gateway process: for each line of input with a token, prints whether its session is valid."""

import asyncio
import sys
from datetime import timedelta

from accord_auth.sessions import Sessions
from accord_db.engine.database import Database, DatabaseSettings
from accord_db.engine.listen import Listener


async def main(dsn: str) -> None:
    database, listener = await Database.connect(DatabaseSettings(dsn=dsn, pool_size=1)), Listener(dsn)
    sessions = Sessions(database, listener, lifetime=timedelta(hours=1), cache_seconds=60)
    await listener.start()
    while not listener.connected:
        await asyncio.sleep(0.01)
    print_line("ready")
    while token := await asyncio.to_thread(sys.stdin.readline):
        print_line("found" if await sessions.authenticate(token.rstrip("\n")) else "refused")
    await listener.close()
    await database.close()


def print_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
