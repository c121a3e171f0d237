"""The embedded server: created once, then started, supervised and stopped."""

import asyncio
import os
import shutil
import subprocess
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from accord_postgres import commands
from accord_postgres.account import Account, choose_account, hand_over, require_own_folder
from accord_postgres.address import address
from accord_postgres.binaries import MAJOR
from accord_postgres.errors import EmbeddedPostgresError, plain_os_errors, space_hint
from accord_postgres.launch import end, kill, launch
from accord_postgres.locks import lock_server, owned
from accord_postgres.log import ServerLog
from accord_postgres.sockets import PORT, make_private, remove_leftovers, socket_folder
from accord_postgres.steps import Steps, run, run_async

START_LIMIT = 120.0
"""Seconds. After a crash, a start replays the write-ahead log."""
POLL = 0.2
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
"""Seconds before a server that has ended is started again."""
STEADY = 30.0
"""Seconds. If a server ran longer, the next restart has the shortest pause again."""


@dataclass(frozen=True, slots=True)
class Ended:
    status: int
    """The exit status; a signal is negative."""


@dataclass(frozen=True, slots=True)
class Restarted:
    seconds: float
    """Since the end of the previous server."""


@dataclass(frozen=True, slots=True)
class RestartFailed:
    reason: str
    retry_in: float


class EmbeddedPostgres:
    """PostgreSQL 18 with the database `accord`, stored in a folder. One process at a time owns the folder.

    The server ends with its owner, cleanly even if the owner is killed. Other processes may use the DSN meanwhile.
    `sync=False` is for tests: a clean shutdown keeps everything, but a killed server loses its last commits.
    """

    def __init__(self, folder: Path, *, sync: bool = True) -> None:
        self._folder = folder.resolve()
        self._data = self._folder / "data"
        self._sockets = socket_folder(self._folder)
        self._log = ServerLog(self._folder / "server.log")
        self._sync = sync
        self._account: Account | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._server_lock = -1
        self._held = ExitStack()
        self._started = False

    @property
    def dsn(self) -> str:
        return self._address("accord")

    @property
    def log_file(self) -> Path:
        return self._log.path

    @property
    def pid(self) -> int | None:
        """The postmaster's pid, or None if no server runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> str:
        """Returns the DSN once the server accepts connections; at once if it runs already.

        Must be called on the main thread: the kernel ends the server with the thread that started it.
        """
        require_main_thread("start")
        if self.pid is None:
            self.stop()
            with plain_os_errors(self._folder), ExitStack() as held:
                self._start(held)
                self._held, self._started = held.pop_all(), True
        return self.dsn

    def stop(self) -> None:
        """Ends every connection, writes a checkpoint, and returns when the server has ended."""
        self._started = False
        self._held.close()

    async def supervise(self) -> AsyncGenerator[Ended | Restarted | RestartFailed, None]:
        """Starts the server again whenever it has ended, until `stop`. For an event loop on the main thread."""
        require_main_thread("supervise")
        pause = SHORTEST_PAUSE
        while True:
            since = time.monotonic()
            await run_async(self._until_ended())
            if self._process is None or not self._started:
                return
            ended = time.monotonic()
            yield Ended(self._process.returncode)
            pause = SHORTEST_PAUSE if ended - since > STEADY else min(2 * pause, LONGEST_PAUSE)
            await asyncio.sleep(pause)
            while (reason := await self._restart()) is not None:
                pause = min(2 * pause, LONGEST_PAUSE)
                yield RestartFailed(reason, pause)
                await asyncio.sleep(pause)
            yield Restarted(time.monotonic() - ended)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _start(self, held: ExitStack) -> None:
        require_own_folder(self._folder)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        held.enter_context(owned(self._folder))
        held.callback(self._unlock)
        run(self._lock())
        self._account = choose_account(self._folder)
        self._make_sockets(self._account, held)
        self._log.open().close()
        hand_over(self._folder, self._account.owner)
        if not self._data.exists():
            self._make_cluster()
        self._require_same_major()
        held.callback(self._end)
        run(self._launch(START_LIMIT))
        self._make_database()

    async def _restart(self) -> str | None:
        """The error message, or None. Recovery has no time limit: ending it would only make the next one begin again."""
        try:
            with plain_os_errors(self._folder):
                await run_async(self._lock())
                await run_async(self._launch(float("inf")))
        except EmbeddedPostgresError as error:
            return str(error)
        return None

    def _until_ended(self) -> Steps[None]:
        while self.pid is not None:
            yield POLL

    def _lock(self) -> Steps[None]:
        """Opens server.lock again, since processes of the previous server share the lock of the previous descriptor."""
        self._unlock()
        self._server_lock = os.open(self._folder / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
        yield from lock_server(self._folder, self._server_lock)

    def _unlock(self) -> None:
        descriptor, self._server_lock = self._server_lock, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _launch(self, limit: float) -> Steps[None]:
        """Requires the lock: removes the files of a previous server."""
        remove_leftovers(self._sockets)
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        self._process = self._run(commands.postgres(self._data, sockets=self._sockets, sync=self._sync))
        yield from self._wait_until_ready(self._process, limit)

    def _end(self) -> None:
        if self._process is not None:
            run(end(self._process))

    def _run(self, program: list[str | Path]) -> subprocess.Popen[bytes]:
        assert self._account is not None
        identity, lock = self._account.identity, self._server_lock
        with self._log.open() as log:
            return launch(program, identity=identity, folder=self._folder, output=log, keep_open=[lock])

    def _make_sockets(self, account: Account, held: ExitStack) -> None:
        make_private(self._sockets, owner=account.owner)
        if self._sockets.parent != self._folder:
            held.callback(remove_if_empty, self._sockets)

    def _make_cluster(self) -> None:
        """Creates it under another name and renames it: so a folder named `data` is complete, even if this process is killed."""
        unfinished = self._folder / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        process = self._run(commands.initdb(unfinished, sync=self._sync))
        try:
            status = process.wait()
        finally:
            kill(process)
        if status != 0:
            raise self._failure("could not create its data folder")
        unfinished.rename(self._data)
        sync_folder(self._folder)

    def _require_same_major(self) -> None:
        version = (self._data / "PG_VERSION").read_text().strip()
        if version != str(MAJOR):
            raise EmbeddedPostgresError(
                f"{self._data} was created by PostgreSQL {version}, and this is PostgreSQL {MAJOR}, which cannot read it. "
                f"To keep the data, dump them with PostgreSQL {version} (pg_dumpall) and load them into a new folder; to "
                f"start with an empty database, move {self._folder} away."
            )

    def _wait_until_ready(self, process: subprocess.Popen[bytes], limit: float) -> Steps[None]:
        deadline = time.monotonic() + limit
        while not self._is_ready(process.pid):
            if process.poll() is not None:
                raise self._failure(f"ended while it started, with status {process.returncode}")
            if time.monotonic() > deadline:
                raise self._failure(f"did not accept connections within {limit:.0f} s")
            yield 0.01

    def _is_ready(self, pid: int) -> bool:
        """Reads PostgreSQL's state from line 8 of postmaster.pid, like pg_ctl. A standby is ready for reads."""
        with suppress(FileNotFoundError):
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() in ("ready", "standby")
        return False

    def _make_database(self) -> None:
        """Runs at every start: an earlier start may have been interrupted, or the database dropped."""
        try:
            with psycopg.connect(self._address("postgres", writable=False), autocommit=True) as connection:
                if connection.execute("SELECT FROM pg_database WHERE datname = 'accord'").fetchone() is None:
                    connection.execute("CREATE DATABASE accord")
        except psycopg.Error as error:
            raise self._failure(f"could not create its database ({error})") from error

    def _address(self, database: str, *, writable: bool = True) -> str:
        sockets, user = self._sockets, commands.SUPERUSER
        return address(sockets=sockets, port=PORT, user=user, database=database, writable=writable)

    def _failure(self, what: str) -> EmbeddedPostgresError:
        lines = "".join(f"\n    {line}" for line in self._log.last_lines())
        return EmbeddedPostgresError(
            f"Embedded PostgreSQL {what}.{space_hint(self._folder)}\n  The end of {self.log_file}:{lines}"
        )


def require_main_thread(method: str) -> None:
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(f"EmbeddedPostgres.{method}() must be called on the main thread")


def remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def sync_folder(folder: Path) -> None:
    """Without it, a power cut could undo a rename in the folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
