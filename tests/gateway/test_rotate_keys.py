"""`accord rotate-keys`: while gateways serve, killed and repeated, and with values that no key decrypts."""

import os
import signal
import subprocess
import sys
from base64 import b32decode, b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import LiteralString
from uuid import UUID

import grpc
import psycopg
import pytest

from accord.second_factors.v1.second_factors_pb2 import (
    ConfirmSecondFactorRequest,
    CreateSecondFactorRequest,
)
from accord.second_factors.v1.second_factors_pb2_grpc import SecondFactorServiceStub
from accord_auth import totp
from accord_auth.encryption import Keyring, Place
from accord_db.engine.database import Database
from accord_db.engine.ids import uuid7
from accord_db.queries.encrypted import ENCRYPTED_COLUMNS
from tests.conftest import temporary_database
from tests.factories import Person, signed_in_person
from tests.gateway.conftest import GatewayProcess, Start, environment, eventually, healthy, url
from tests.gateway.test_doctor import accord

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
OLD_ONLY = f"2026-05:{b64encode(OLD).decode()}"
NEW_ONLY = f"2026-11:{b64encode(NEW).decode()}"
BOTH = f"{NEW_ONLY},{OLD_ONLY}"

WITHOUT_ACCOUNT = ("outbox_messages", "signing_keys")
OLD_KEYS, NEW_KEYS = Keyring({"2026-05": OLD}), Keyring({"2026-11": NEW})


class Stored:
    """Values of all encrypted columns, encrypted with the old key."""

    def __init__(self, dsn: str, accounts: Sequence[UUID]) -> None:
        self._dsn = dsn
        self.values: dict[Place, bytes] = {}
        self.rows = [(uuid7(), account_id) for account_id in accounts]

    def insert(self) -> None:
        with psycopg.connect(self._dsn) as connection, connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO second_factors (id, account_id, secret) VALUES (%s, %s, %s)",
                [(row, owner, self._encrypted("second_factors", "secret", row, owner)) for row, owner in self.rows],
            )
            cursor.executemany(
                "INSERT INTO linked_providers (id, account_id, provider, issuer, subject, access_token, refresh_token)"
                " VALUES (%s, %s, 'acme', 'https://acme.example', %s, %s, %s)",
                [
                    (
                        row,
                        owner,
                        str(row),
                        self._encrypted("linked_providers", "access_token", row, owner),
                        # Not every provider issues one.
                        self._encrypted("linked_providers", "refresh_token", row, owner) if number % 2 else None,
                    )
                    for number, (row, owner) in enumerate(self.rows)
                ],
            )
            self.insert_messages(cursor, 3)
            row = uuid7()
            cursor.execute(
                "INSERT INTO signing_keys (id, private_key, public_key) VALUES (%s, %s, '{}')",
                (row, self._encrypted("signing_keys", "private_key", row, None)),
            )

    def insert_messages(self, cursor: "psycopg.Cursor[tuple[object, ...]]", count: int) -> None:
        ids = [uuid7() for _ in range(count)]
        cursor.executemany(
            "INSERT INTO outbox_messages (id, template, content) VALUES (%s, 'verify_email', %s)",
            [(row, self._encrypted("outbox_messages", "content", row, None)) for row in ids],
        )

    def _encrypted(self, table: str, column: str, row: UUID, owner: UUID | None) -> bytes:
        place = Place(table, column, row, owner)
        self.values[place] = os.urandom(20)
        return OLD_KEYS.encrypt(self.values[place], place)

    def ciphertexts(self) -> dict[Place, bytes]:
        found: dict[Place, bytes] = {}
        with psycopg.connect(self._dsn) as connection:
            for column in ENCRYPTED_COLUMNS:
                owner: LiteralString = "NULL::uuid" if column.table in WITHOUT_ACCOUNT else "account_id"
                rows = connection.execute(
                    f"SELECT id, {owner}, {column.name} FROM {column.table} WHERE {column.name} IS NOT NULL".encode()
                )
                found |= {Place(column.table, column.name, row, owner): value for row, owner, value in rows}
        return found

    def rotated(self) -> int:
        return sum(NEW_KEYS.is_current(value) for value in self.ciphertexts().values())

    def readable_with(self, keys: Keyring) -> bool:
        """Raises Undecipherable if the keys do not decrypt a value."""
        return {place: keys.decrypt(value, place) for place, value in self.ciphertexts().items()} == self.values


@pytest.fixture
async def stored(database: Database, dsn: str) -> Stored:
    stored = Stored(dsn, [(await signed_in_person(database)).account_id for _ in range(4)])
    stored.insert()
    return stored


def rotate_keys(folder: Path, database_url: str, keys: str) -> tuple[int, list[str]]:
    done = accord(folder, "rotate-keys", DATABASE_URL=database_url, ENCRYPTION_KEYS=keys)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, (done.stdout + done.stderr).splitlines()


def test_every_value_is_re_encrypted_and_readable_without_the_old_key(
    stored: Stored, database_url: str, tmp_path: Path
) -> None:
    assert rotate_keys(tmp_path, database_url, BOTH) == (
        0,
        [
            "second_factors.secret: 4 re-encrypted",
            "linked_providers.access_token: 4 re-encrypted",
            "linked_providers.refresh_token: 2 re-encrypted",
            "outbox_messages.content: 3 re-encrypted",
            "signing_keys.private_key: 1 re-encrypted",
            "No longer needed in ENCRYPTION_KEYS: 2026-05",
        ],
    )
    assert stored.readable_with(NEW_KEYS)


def test_second_rotation_changes_nothing(stored: Stored, database_url: str, tmp_path: Path) -> None:
    rotate_keys(tmp_path, database_url, BOTH)
    before = stored.ciphertexts()
    status, output = rotate_keys(tmp_path, database_url, BOTH)
    assert status == 0
    assert {line.rpartition(": ")[2] for line in output[:5]} == {"0 re-encrypted"}
    assert stored.ciphertexts() == before


def test_rotation_with_one_key_succeeds(stored: Stored, database_url: str, tmp_path: Path) -> None:
    status, output = rotate_keys(tmp_path, database_url, OLD_ONLY)
    assert (status, len(output)) == (0, 5)
    assert stored.readable_with(OLD_KEYS)


def test_values_that_no_key_decrypts_are_reported_and_kept_and_others_are_re_encrypted(
    stored: Stored, database_url: str, dsn: str, tmp_path: Path
) -> None:
    row, other = stored.rows[0][0], stored.rows[1][0]
    with psycopg.connect(dsn) as connection:
        connection.execute("UPDATE second_factors SET secret = secret || '\\x00' WHERE id = %s", (row,))
        # A header that names the first key, before a value that no key decrypts.
        header = b"\x01\x072026-11"
        connection.execute("UPDATE linked_providers SET access_token = %s WHERE id = %s", (header + bytes(28), other))
    status, output = rotate_keys(tmp_path, database_url, BOTH)
    assert status == 1
    assert [line for line in output if line.startswith("✗")] == [
        f"✗ none of ENCRYPTION_KEYS decrypts second_factors.secret of {row}",
        f"✗ none of ENCRYPTION_KEYS decrypts linked_providers.access_token of {other}",
    ]
    assert output[0] == "second_factors.secret: 3 re-encrypted"
    assert stored.rotated() == len(stored.values) - 1  # one of which has only the header


def test_values_of_a_key_that_was_removed_too_early_are_reported(
    stored: Stored, database_url: str, tmp_path: Path
) -> None:
    status, output = rotate_keys(tmp_path, database_url, NEW_ONLY)
    assert status == 1
    assert len([line for line in output if line.startswith("✗")]) == len(stored.values)
    assert stored.readable_with(OLD_KEYS)


def test_values_that_a_gateway_encrypts_with_an_old_key_meanwhile_are_re_encrypted_and_reported(
    stored: Stored, database_url: str, dsn: str, tmp_path: Path
) -> None:
    place, old = next((place, value) for place, value in stored.ciphertexts().items() if place.column == "secret")
    with psycopg.connect(dsn) as connection:
        # While the last column is re-encrypted, another gateway writes to the first one.
        connection.execute(
            "CREATE FUNCTION write_late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" UPDATE second_factors SET secret = '\\x{old.hex()}' WHERE id = '{place.row_id}'; RETURN NULL; END $$;"
            " CREATE TRIGGER write_late AFTER UPDATE ON outbox_messages EXECUTE FUNCTION write_late()".encode()
        )
    status, output = rotate_keys(tmp_path, database_url, BOTH)
    assert status == 1
    assert output[0] == "second_factors.secret: 5 re-encrypted"
    assert output[-1].startswith("✗ A gateway still encrypts with an old key")
    assert stored.readable_with(NEW_KEYS)
    assert rotate_keys(tmp_path, database_url, BOTH)[0] == 0


def test_after_a_killed_rotation_every_value_is_readable_and_a_second_one_completes_it(
    stored: Stored, database_url: str, dsn: str, tmp_path: Path
) -> None:
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        stored.insert_messages(cursor, 5000)
    settings: dict[str, object] = {"DATABASE_URL": database_url, "ENCRYPTION_KEYS": BOTH}
    with subprocess.Popen(
        [sys.executable, "-m", "accord_gateway", "rotate-keys"],
        cwd=tmp_path,
        env=environment(settings),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        eventually(lambda: stored.rotated() > 20 or None)
        running.send_signal(signal.SIGKILL)
    assert 20 < stored.rotated() < len(stored.values)
    assert stored.readable_with(Keyring({"2026-11": NEW, "2026-05": OLD}))
    assert rotate_keys(tmp_path, database_url, BOTH)[0] == 0
    assert stored.readable_with(NEW_KEYS)


def test_concurrent_rotations_succeed(stored: Stored, database_url: str, dsn: str, tmp_path: Path) -> None:
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        stored.insert_messages(cursor, 500)
    settings: dict[str, object] = {"DATABASE_URL": database_url, "ENCRYPTION_KEYS": BOTH}
    command = [sys.executable, "-m", "accord_gateway", "rotate-keys"]
    both = [subprocess.Popen(command, cwd=tmp_path, env=environment(settings)) for _ in range(2)]
    assert [each.wait(60) for each in both] == [0, 0]
    assert stored.readable_with(NEW_KEYS)


def test_database_that_is_not_migrated_is_refused(postgres: str, tmp_path: Path) -> None:
    with temporary_database(postgres) as empty:
        status, output = rotate_keys(tmp_path, url(empty), BOTH)
    assert status == 1
    assert "Run `accord migrate`" in " ".join(output)


@pytest.fixture
async def people(database: Database) -> list[Person]:
    return [await signed_in_person(database) for _ in range(5)]


def create(address: str, person: Person) -> bytes:
    with grpc.insecure_channel(address) as channel:
        request = CreateSecondFactorRequest()
        return b32decode(SecondFactorServiceStub(channel).CreateSecondFactor(request, metadata=person.headers).secret)


def confirm(address: str, person: Person, code: str) -> None:
    with grpc.insecure_channel(address) as channel:
        request = ConfirmSecondFactorRequest(code=code)
        SecondFactorServiceStub(channel).ConfirmSecondFactor(request, metadata=person.headers)


def current_code(dsn: str, secret: bytes) -> str:
    with psycopg.connect(dsn) as connection:
        [(now,)] = connection.execute("SELECT now()")
    return totp.code_at(secret, totp.step_at(now))


def test_keys_change_while_gateways_serve(
    start: Start, people: list[Person], database_url: str, dsn: str, tmp_path: Path
) -> None:
    def serve(keys: str) -> GatewayProcess:
        gateway = start(DATABASE_URL=database_url, ENCRYPTION_KEYS=keys)
        assert healthy(gateway.address)
        return gateway

    early, late = people[:3], people[3:]
    old = serve(f"{OLD_ONLY},{NEW_ONLY}")  # every gateway can decrypt with the new key before one encrypts with it
    secrets = {person: create(old.address, person) for person in early}
    new = serve(BOTH)
    secrets |= {person: create(new.address, person) for person in late}
    confirm(old.address, late[0], current_code(dsn, secrets[late[0]]))
    confirm(new.address, early[0], current_code(dsn, secrets[early[0]]))
    assert old.stop() == 0  # no gateway encrypts with the old key any longer
    status, output = rotate_keys(tmp_path, database_url, BOTH)
    assert (status, output[0]) == (0, "second_factors.secret: 3 re-encrypted")
    confirm(new.address, early[1], current_code(dsn, secrets[early[1]]))
    newest = serve(NEW_ONLY)
    confirm(newest.address, early[2], current_code(dsn, secrets[early[2]]))
    confirm(newest.address, late[1], current_code(dsn, secrets[late[1]]))


@pytest.mark.parametrize("module", ["cli.migrate", "cli.doctor", "process.supervisor"])
def test_commands_and_supervisors_that_encrypt_nothing_do_not_import_cryptography(module: str) -> None:
    program = f"import sys, accord_gateway.{module}; print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
