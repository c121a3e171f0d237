"""The life of an embedded server: made once, started, waited for, stopped."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psycopg

from accord_postgres import commands
from accord_postgres.account import Account, choose_account, hand_over, require_own_folder
from accord_postgres.binaries import MAJOR
from accord_postgres.errors import EmbeddedPostgresError, in_plain_words, space_hint
from accord_postgres.launch import end, kill, launch
from accord_postgres.locks import claimed
from accord_postgres.log import ServerLog
from accord_postgres.sockets import PORT, make_private, remove_leftovers, socket_folder

Ending = Callable[[subprocess.Popen[bytes]], None]
Run = Callable[[list[str | Path], Ending], subprocess.Popen[bytes]]

START_LIMIT = 120.0
"""Seconds. Long, since a start after a crash replays what the crash left unwritten."""


class EmbeddedPostgres:
    """PostgreSQL 18 with the database `accord`, kept in a folder, for one owning process at a time.

    It ends with its owner, cleanly even if the owner is killed. `sync=False` is for data that need not outlive a power
    cut: tests. Other processes may use the DSN while the owner runs.
    """

    def __init__(self, folder: Path, *, sync: bool = True) -> None:
        self._folder = folder.resolve()
        self._data = self._folder / "data"
        self._sockets = socket_folder(self._folder)
        self._log = ServerLog(self._folder / "server.log")
        self._sync = sync
        self._process: subprocess.Popen[bytes] | None = None
        self._held = ExitStack()

    @property
    def dsn(self) -> str:
        return self._dsn_of("accord")

    @property
    def log_file(self) -> Path:
        return self._log.path

    @property
    def pid(self) -> int | None:
        """Of the postmaster; None when it is not running."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> str:
        """Returns the DSN once the server answers. Does nothing if it runs already.

        To be called on the main thread: the kernel ends the server when the thread that started it ends.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("EmbeddedPostgres.start() must be called on the main thread")
        if self.pid is None:
            self.stop()
            with in_plain_words(self._folder), ExitStack() as held:
                self._start(held)
                self._held = held.pop_all()
        return self.dsn

    def stop(self) -> None:
        """Ends every connection, writes what is to be written, and returns when the server is gone."""
        self._held.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _start(self, held: ExitStack) -> None:
        require_own_folder(self._folder)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = held.enter_context(claimed(self._folder))
        account = choose_account(self._folder)
        self._make_sockets(account, held)
        self._log.open().close()
        hand_over(self._folder, account.owner)

        def run(program: list[str | Path], ending: Ending) -> subprocess.Popen[bytes]:
            with self._log.open() as log:
                process = launch(program, identity=account.identity, folder=self._folder, output=log, keep_open=[lock])
            held.callback(ending, process)
            return process

        if not self._data.exists():
            self._make_cluster(run)
        self._require_same_major()
        (self._data / "postmaster.pid").unlink(missing_ok=True)  # stale, now that the lock is ours
        self._process = run(commands.postgres(self._data, sockets=self._sockets, sync=self._sync), end)
        self._wait_until_ready(self._process)
        self._make_database()

    def _make_sockets(self, account: Account, held: ExitStack) -> None:
        make_private(self._sockets, owner=account.owner)
        remove_leftovers(self._sockets)
        if self._sockets.parent != self._folder:
            held.callback(remove_if_empty, self._sockets)

    def _make_cluster(self, run: Run) -> None:
        """Under another name first: what has the name `data` is whole, whenever we may be killed."""
        unfinished = self._folder / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        if run(commands.initdb(unfinished, sync=self._sync), kill).wait() != 0:
            raise self._failure("could not make its data folder")
        unfinished.rename(self._data)
        sync_folder(self._folder)

    def _require_same_major(self) -> None:
        made_by = (self._data / "PG_VERSION").read_text().strip()
        if made_by != str(MAJOR):
            raise EmbeddedPostgresError(
                f"{self._data} was made by PostgreSQL {made_by}, and this is PostgreSQL {MAJOR}, which cannot read it. "
                f"To keep what is in it, dump it with a PostgreSQL {made_by} (pg_dumpall) and load it into a new "
                f"folder; to begin with an empty database, move {self._folder} away."
            )

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        end_of_patience = time.monotonic() + START_LIMIT
        while not self._is_ready(process.pid):
            if process.poll() is not None:
                raise self._failure(f"ended while it started, with status {process.returncode}")
            if time.monotonic() > end_of_patience:
                raise self._failure(f"did not accept connections within {START_LIMIT:.0f} s")
            time.sleep(0.01)

    def _is_ready(self, pid: int) -> bool:
        """As pg_ctl tells it: PostgreSQL writes its state into line 8 of its pid file."""
        with suppress(FileNotFoundError):
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"
        return False

    def _make_database(self) -> None:
        """Looked for at every start: the first may have been interrupted, and someone may have dropped it."""
        try:
            with psycopg.connect(self._dsn_of("postgres"), autocommit=True) as connection:
                if connection.execute("SELECT FROM pg_database WHERE datname = 'accord'").fetchone() is None:
                    connection.execute("CREATE DATABASE accord")
        except psycopg.Error as error:
            raise self._failure(f"did not make its database ({error})") from error

    def _dsn_of(self, database: str) -> str:
        return f"postgresql://{commands.SUPERUSER}@/{database}?host={quote(str(self._sockets))}&port={PORT}"

    def _failure(self, what: str) -> EmbeddedPostgresError:
        said = "".join(f"\n    {line}" for line in self._log.last_lines())
        return EmbeddedPostgresError(
            f"Embedded PostgreSQL {what}.{space_hint(self._folder)}\n  The end of {self.log_file}:{said}"
        )


def remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def sync_folder(folder: Path) -> None:
    """Or a power cut could undo a rename in it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
