"""The embedded server, in real processes and folders. Tests kill processes with SIGKILL."""

import os
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from accord_postgres import EmbeddedPostgres, EmbeddedPostgresError, locks
from accord_postgres.account import choose_account
from accord_postgres.commands import postgres as postgres_command
from accord_postgres.launch import TRAMPOLINE, end, launch
from accord_postgres.locks import lock_server, opened, owned
from accord_postgres.steps import run

OWNER = """
import pathlib, signal, sys
from accord_postgres import EmbeddedPostgres, EmbeddedPostgresError

signal.signal(signal.SIGINT, signal.SIG_IGN)
postgres = EmbeddedPostgres(pathlib.Path(sys.argv[1]), sync=False)
try:
    print(postgres.start(), flush=True)
    print(postgres.pid, flush=True)
except EmbeddedPostgresError as error:
    sys.exit(str(error))
sys.stdin.read()
postgres.stop()
"""

NORMAL_USER = "namespace:1:1"
ROOT = "namespace:0:0"
USER_WITHOUT_ENTRY = "namespace:54321:54321"

IN_A_CHROOT = ["unshare", "--mount", "sh", "-c", 'mount --rbind / /mnt && exec chroot /mnt "$@"', "sh"]
"""The kernel refuses user namespaces in a chroot, as in containers with Docker's default profile."""

ON_A_SMALL_DISK = [
    *("unshare", "--user", "--map-root-user", "--mount"),
    *("sh", "-c", 'folder=$0 && mount -t tmpfs -o size=20m small "$folder" && exec "$@"'),
]


class Owner:
    """Another process that owns a server until it is stopped or killed."""

    def __init__(self, folder: Path, prefix: list[str]) -> None:
        command = [*prefix, sys.executable, "-c", OWNER, str(folder)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )

    def started(self) -> tuple[str, int]:
        """The DSN and the server's pid."""
        assert self.process.stdout is not None
        dsn, pid = self.process.stdout.readline().strip(), self.process.stdout.readline().strip()
        assert pid, self.failure()
        return dsn, int(pid)

    def failure(self) -> str:
        return self.process.communicate(timeout=60)[1]

    def stop(self) -> None:
        self.process.communicate(timeout=60)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


StartOwner = Callable[..., Owner]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Directly in the temporary folder, so that its path is short and every account can reach it."""
    folder = Path(tempfile.mkdtemp(prefix="accord-"))
    yield folder
    with owned(folder), opened(folder / "server.lock") as lock:
        run(lock_server(folder, lock))  # the last server has ended
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def first_start() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="accord-"))
    with EmbeddedPostgres(folder, sync=False) as postgres, psycopg.connect(postgres.dsn) as connection:
        connection.execute("CREATE TABLE notes (note text)")
        connection.execute("INSERT INTO notes VALUES ('first')")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def used_folder(folder: Path, first_start: Path) -> Path:
    """A folder with the data of an earlier server."""
    return shutil.copytree(first_start, folder, dirs_exist_ok=True)


@pytest.fixture
def start_owner() -> Iterator[StartOwner]:
    with ExitStack() as owners:

        def start(folder: Path, prefix: list[str] | None = None) -> Owner:
            owner = Owner(folder, prefix or [])
            owners.callback(owner.kill)
            return owner

        yield start


def as_(identity: str) -> list[str]:
    """A command prefix that runs the rest as another user, with the launcher's trampoline."""
    return [sys.executable, "-I", "-S", str(TRAMPOLINE), str(os.getpid()), "/", identity]


def require(prefix: list[str]) -> None:
    works = shutil.which(prefix[0]) and subprocess.run([*prefix, "/bin/true"], capture_output=True).returncode == 0
    if not works:
        pytest.skip(f"not allowed on this machine: {shlex.join(prefix)}")


def require_programs_of_every_account() -> None:
    """Under a folder such as those of mktemp, only its owner can run the server."""
    closed = [folder for folder in Path(sys.prefix).resolve().parents if not folder.stat().st_mode & stat.S_IXOTH]
    if closed:
        pytest.skip(f"other accounts cannot enter {closed[0]}, and so cannot run its programs")


def start_directly(folder: Path, keep_open: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    """A server on the folder's data that EmbeddedPostgres has not started."""
    (sockets := folder / "direct").mkdir()
    identity = choose_account(folder).identity
    command = postgres_command(folder / "data", sockets=sockets, sync=False)
    server = launch(command, identity=identity, folder=folder, output=subprocess.DEVNULL, keep_open=keep_open)
    wait_until((sockets / ".s.PGSQL.5432").exists)
    return server


def notes(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as connection:
        return [note for (note,) in connection.execute("SELECT note FROM notes ORDER BY note")]


def wait_until_ended(folder: Path) -> None:
    """Waits for the lock: the pid exists until init has reaped the process."""
    with opened(folder / "server.lock") as lock:
        assert run(locks.locked_within(10, lock))


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not happen within 20 s"
        time.sleep(0.01)


def show(dsn: str, setting: str) -> object:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT current_setting(%s)", [setting]).fetchone()
        return row and row[0]


def test_first_start_creates_a_utf8_database_of_the_role_accord(first_start: Path) -> None:
    with EmbeddedPostgres(first_start) as postgres, psycopg.connect(postgres.dsn) as connection:
        row = connection.execute(
            "SELECT datname, pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datlocprovider, datlocale, "
            "current_setting('server_version_num')::int / 10000 FROM pg_database WHERE datname = current_database()"
        ).fetchone()
    assert row == ("accord", "accord", "UTF8", "b", "C.UTF-8", 18)


def test_second_start_keeps_the_data(used_folder: Path) -> None:
    with EmbeddedPostgres(used_folder) as postgres:
        assert notes(postgres.dsn) == ["first"]


def test_writes_are_synced_unless_sync_is_false(used_folder: Path) -> None:
    with EmbeddedPostgres(used_folder) as postgres:
        assert (show(postgres.dsn, "fsync"), show(postgres.dsn, "full_page_writes")) == ("on", "on")
    with EmbeddedPostgres(used_folder, sync=False) as postgres:
        assert (show(postgres.dsn, "fsync"), show(postgres.dsn, "full_page_writes")) == ("off", "off")


def test_server_is_reached_through_a_private_folder_only(used_folder: Path) -> None:
    with EmbeddedPostgres(used_folder) as postgres:
        assert show(postgres.dsn, "listen_addresses") == ""
        assert stat.S_IMODE((used_folder / "socket").stat().st_mode) == 0o700


def test_start_and_stop_can_be_repeated(used_folder: Path) -> None:
    postgres = EmbeddedPostgres(used_folder)
    assert postgres.start() == postgres.dsn
    pid = postgres.pid
    assert postgres.start() == postgres.dsn
    assert postgres.pid == pid
    postgres.stop()
    postgres.stop()
    assert postgres.pid is None


def test_stop_is_a_clean_shutdown_even_with_clients_connected(used_folder: Path) -> None:
    postgres = EmbeddedPostgres(used_folder)
    with psycopg.connect(postgres.start()):
        postgres.stop()
    assert "database system is shut down" in postgres.log_file.read_text()


def test_server_shuts_down_cleanly_after_its_owner_was_killed_and_loses_no_commit(
    used_folder: Path, start_owner: StartOwner
) -> None:
    owner = start_owner(used_folder)
    dsn, _ = owner.started()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("INSERT INTO notes VALUES ('second')")
        owner.kill()
        wait_until_ended(used_folder)
    assert "database system is shut down" in (used_folder / "server.log").read_text().splitlines()[-1]
    with EmbeddedPostgres(used_folder) as postgres:
        assert notes(postgres.dsn) == ["first", "second"]


def test_start_waits_for_the_server_of_a_killed_owner(used_folder: Path, start_owner: StartOwner) -> None:
    owner = start_owner(used_folder)
    owner.started()
    owner.kill()
    with EmbeddedPostgres(used_folder) as postgres:
        assert notes(postgres.dsn) == ["first"]


def test_server_that_outlived_its_owner_is_stopped_by_the_next_owner(
    used_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS, where the kernel does not end a process with its parent."""
    monkeypatch.setattr(locks, "GRACE", 0.1)
    with opened(used_folder / "server.lock") as lock:
        assert locks.locked(lock)
        orphan = start_directly(used_folder, keep_open=[lock])
    with EmbeddedPostgres(used_folder) as postgres:
        assert orphan.wait() == 0
        assert notes(postgres.dsn) == ["first"]


def test_killed_server_can_be_started_again_by_its_owner(used_folder: Path) -> None:
    with EmbeddedPostgres(used_folder) as postgres:
        assert postgres.pid is not None
        os.kill(postgres.pid, signal.SIGKILL)
        wait_until(lambda: postgres.pid is None)
        assert notes(postgres.start()) == ["first"]


def test_ctrl_c_does_not_stop_the_server_before_its_owner(used_folder: Path, start_owner: StartOwner) -> None:
    owner = start_owner(used_folder)
    dsn, _ = owner.started()
    os.killpg(owner.process.pid, signal.SIGINT)
    assert notes(dsn) == ["first"]
    owner.stop()


def test_second_owner_gets_an_error_that_names_the_first(used_folder: Path, start_owner: StartOwner) -> None:
    owner = start_owner(used_folder)
    dsn, _ = owner.started()
    with pytest.raises(
        EmbeddedPostgresError, match=rf"in use by process {owner.process.pid} \(.*python -c.*stop that one"
    ):
        EmbeddedPostgres(used_folder).start()
    assert notes(dsn) == ["first"]


def test_start_ignores_leftovers_with_the_pid_of_another_process(used_folder: Path) -> None:
    """After a reboot any process may have the pid in postmaster.pid."""
    with subprocess.Popen(["sleep", "60"]) as other_process:
        lines = [
            str(other_process.pid),
            str(used_folder / "data"),
            "1",
            "5432",
            str(used_folder / "socket"),
            "",
            "",
            "ready",
        ]
        (used_folder / "data" / "postmaster.pid").write_text("\n".join(lines))
        (used_folder / "socket" / ".s.PGSQL.5432.lock").write_text("\n".join(lines[:5]))
        with socket.socket(socket.AF_UNIX) as left_over:
            left_over.bind(str(used_folder / "socket" / ".s.PGSQL.5432"))
        with EmbeddedPostgres(used_folder) as postgres:
            assert notes(postgres.dsn) == ["first"]
        assert other_process.poll() is None
        other_process.kill()


def test_start_fails_while_another_server_runs_on_the_folder(used_folder: Path) -> None:
    """That server does not hold Accord's locks, but PostgreSQL detects its shared memory."""
    server = start_directly(used_folder)
    with pytest.raises(EmbeddedPostgresError, match="pre-existing shared memory block"):
        EmbeddedPostgres(used_folder).start()
    assert server.poll() is None
    run(end(server))


def test_first_start_that_was_killed_is_repeated(folder: Path, start_owner: StartOwner) -> None:
    owner = start_owner(folder)
    wait_until((folder / "data.new" / "global").exists)
    owner.kill()
    assert not (folder / "data").exists()
    with EmbeddedPostgres(folder, sync=False) as postgres:
        assert show(postgres.dsn, "data_directory") == str(folder / "data")


def test_start_ignores_an_unfinished_data_folder(folder: Path) -> None:
    (folder / "data.new").mkdir()
    (folder / "data.new" / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(folder, sync=False) as postgres:
        assert show(postgres.dsn, "data_directory") == str(folder / "data")


@pytest.mark.parametrize("name", ["long" * 25, "a,comma"])
def test_path_that_cannot_be_addressed_gets_a_short_private_socket_folder(used_folder: Path, name: str) -> None:
    deep = used_folder / name / "pg ü%"
    shutil.copytree(used_folder / "data", deep / "data")
    deep.chmod(0o700)
    with EmbeddedPostgres(deep) as postgres:
        sockets = Path(str(show(postgres.dsn, "unix_socket_directories")).strip('"'))
        assert notes(postgres.dsn) == ["first"]
        assert sockets.parent == Path(tempfile.gettempdir()).resolve()
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        assert EmbeddedPostgres(deep).dsn == postgres.dsn
    assert not sockets.exists()


def test_path_can_contain_spaces_and_quotes(used_folder: Path) -> None:
    odd = used_folder / ' "it\'s" 100% ü '
    shutil.copytree(used_folder / "data", odd / "data")
    with EmbeddedPostgres(odd) as postgres:
        assert notes(postgres.dsn) == ["first"]


def test_socket_folder_open_to_other_users_is_rejected(used_folder: Path) -> None:
    (used_folder / "socket").chmod(0o777)
    with pytest.raises(EmbeddedPostgresError, match="with mode 777, but must belong to"):
        EmbeddedPostgres(used_folder).start()


def test_data_of_another_major_version_are_rejected(used_folder: Path) -> None:
    (used_folder / "data" / "PG_VERSION").write_text("16\n")
    with pytest.raises(EmbeddedPostgresError, match="created by PostgreSQL 16, and this is PostgreSQL 18"):
        EmbeddedPostgres(used_folder).start()


def test_failed_start_reports_the_end_of_the_log_and_can_be_repeated(used_folder: Path) -> None:
    configuration = used_folder / "data" / "postgresql.conf"
    before = configuration.read_text()
    configuration.write_text("no_such_setting = 1\n")
    postgres = EmbeddedPostgres(used_folder)
    with pytest.raises(EmbeddedPostgresError, match=r"(?s)status 1.*server.log:.*no_such_setting"):
        postgres.start()
    assert postgres.pid is None
    configuration.write_text(before)
    postgres.start()
    postgres.stop()


def test_full_disk_is_reported_as_the_likely_cause(folder: Path, start_owner: StartOwner) -> None:
    prefix = [*ON_A_SMALL_DISK, str(folder)]
    require(prefix)
    failure = start_owner(folder / "postgres", prefix).failure()
    assert "No space left on device" in failure
    assert "free some space" in failure


def test_error_names_a_folder_that_cannot_be_created() -> None:
    with pytest.raises(EmbeddedPostgresError, match="cannot use /proc/postgres"):
        EmbeddedPostgres(Path("/proc/postgres")).start()


def test_start_outside_of_the_main_thread_raises(folder: Path) -> None:
    raised: list[BaseException] = []

    def start() -> None:
        try:
            EmbeddedPostgres(folder).start()
        except RuntimeError as error:
            raised.append(error)

    (thread := threading.Thread(target=start)).start()
    thread.join()
    assert "main thread" in str(raised[0])


@pytest.mark.parametrize("identity", [NORMAL_USER, ROOT, USER_WITHOUT_ENTRY])
def test_server_runs_for_every_kind_of_user(folder: Path, start_owner: StartOwner, identity: str) -> None:
    require(as_(identity))
    for _ in range(2):
        owner = start_owner(folder, as_(identity))
        owner.started()
        owner.kill()
        wait_until_ended(folder)
    assert "database system is shut down" in (folder / "server.log").read_text().splitlines()[-1]


def test_server_of_root_runs_as_nobody_without_user_namespaces(folder: Path, start_owner: StartOwner) -> None:
    require(IN_A_CHROOT)
    require_programs_of_every_account()
    owner = start_owner(folder, IN_A_CHROOT)
    dsn, pid = owner.started()
    assert Path(f"/proc/{pid}").stat().st_uid == (folder / "data").stat().st_uid != 0
    assert show(dsn, "listen_addresses") == ""
    owner.kill()
    wait_until_ended(folder)


def test_root_can_start_data_that_was_created_without_user_namespaces(
    used_folder: Path, start_owner: StartOwner
) -> None:
    require(IN_A_CHROOT)
    require_programs_of_every_account()
    owner = start_owner(used_folder, IN_A_CHROOT)
    assert notes(owner.started()[0]) == ["first"]
    owner.stop()
    with EmbeddedPostgres(used_folder) as postgres:
        assert notes(postgres.dsn) == ["first"]


def test_data_of_a_normal_user_keep_their_owner_if_root_starts_the_server(used_folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    require_programs_of_every_account()
    for path in (used_folder, *used_folder.rglob("*")):
        os.chown(path, 12345, 12345)
    with EmbeddedPostgres(used_folder) as postgres:
        assert Path(f"/proc/{postgres.pid}").stat().st_uid == 12345
        assert notes(postgres.dsn) == ["first"]
    assert {path.stat().st_uid for path in used_folder.rglob("*")} == {12345}


def test_error_for_a_folder_that_no_account_can_reach_lists_remedies(folder: Path, start_owner: StartOwner) -> None:
    require(IN_A_CHROOT)
    failure = start_owner(folder / "inside", IN_A_CHROOT).failure()
    assert "a user namespace: cannot open a user namespace: Operation not permitted" in failure
    assert f"the account nobody: cannot enter {folder}: Permission denied" in failure
    assert "Run as a normal user, or move the checkout" in failure


def test_folder_of_another_user_is_rejected(used_folder: Path, start_owner: StartOwner) -> None:
    require(as_(NORMAL_USER))
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    used_folder.chmod(0o755)
    os.chown(used_folder / "data", 12345, -1)
    assert "it was created by another user" in start_owner(used_folder, as_(NORMAL_USER)).failure()
