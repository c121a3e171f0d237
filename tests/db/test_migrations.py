"""Migrations create the database of the models, run once, and do not block other users of the database."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Enum,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    Uuid,
    func,
)
from sqlalchemy import text as sql_text
from sqlalchemy.dialects.postgresql import JSONB

import accord_db
from accord_db.engine.errors import Unavailable
from accord_db.engine.folding import EmailAddress
from accord_db.engine.row_level_security import GATEWAY_ROLE
from accord_db.migrate import LockRetry, MigrationError, apply, current_and_head, is_current
from accord_db.migrate import __main__ as command_line
from accord_db.migrate.alembic_commands import history, sql
from accord_db.migrate.apply import revert
from accord_db.migrate.autogenerate import Draft, generate
from accord_db.migrate.drift import check_drift
from accord_db.migrate.gateway_role import role_problem
from accord_db.migrate.lint import lint
from accord_db.migrate.revisions import VERSIONS, read_revisions
from accord_db.migrate.scratch import scratch_database, scratch_server
from accord_db.schema import metadata as accord_metadata
from tests.conftest import temporary_database

HEAD = read_revisions().head
assert HEAD is not None


@pytest.fixture
def empty(postgres: str) -> Iterator[str]:
    """A database that was never migrated."""
    with temporary_database(postgres) as dsn:
        yield dsn


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    """A copy of the migrations, to which a test adds others."""
    folder = tmp_path / "versions"
    shutil.copytree(VERSIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def add(versions: Path, revision: str, upgrade: str, *, after: str | None = HEAD, more: str = "") -> None:
    (versions / f"{revision}_added.py").write_text(
        f'"""added"""\nfrom alembic import op\nrevision = {revision!r}\ndown_revision = {after!r}\n{more}\n'
        f"def upgrade() -> None:\n    {upgrade}\n\ndef downgrade() -> None:\n    pass\n"
    )


def tables(dsn: str) -> set[str]:
    with psycopg.connect(dsn) as connection:
        return {name for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


# --- apply ------------------------------------------------------------------------------------------------------------
def test_one_of_ten_concurrent_processes_migrates(empty: str) -> None:
    program = "import sys; from accord_db.migrate import apply; print(apply(sys.argv[1]))"
    processes = [
        subprocess.Popen([sys.executable, "-c", program, empty], stdout=subprocess.PIPE, text=True) for _ in range(10)
    ]
    results = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert sorted(results) == ["False"] * 9 + ["True"]
    assert [process.returncode for process in processes] == [0] * 10
    assert is_current(empty)


def test_current_database_is_detected_without_alembic(dsn: str) -> None:
    program = (
        "import sys; from accord_db.migrate import apply, is_current; print(is_current(sys.argv[1]), "
        "apply(sys.argv[1]), {'alembic', 'sqlalchemy'} & set(sys.modules))"
    )
    completed = subprocess.run([sys.executable, "-c", program, dsn], capture_output=True, text=True, check=True)
    assert completed.stdout.strip() == "True False set()"


def test_apply_migrates_an_empty_database_to_the_head(empty: str) -> None:
    assert not is_current(empty)
    assert current_and_head(empty) == (None, HEAD)
    assert apply(empty)
    assert current_and_head(empty) == (HEAD, HEAD)
    assert not apply(empty)


def test_apply_does_not_change_a_database_that_a_newer_release_has_migrated(dsn: str, versions: Path) -> None:
    add(versions, "3000_01_01_0000", "op.execute('CREATE TABLE newer ()')")
    apply(dsn, versions=versions)
    assert is_current(dsn)
    assert not apply(dsn)
    assert "newer" in tables(dsn)


def test_apply_runs_only_missing_migrations(dsn: str, versions: Path) -> None:
    add(versions, "3000_01_01_0000", "op.execute('CREATE TABLE newer ()')")
    assert not is_current(dsn, versions=versions)
    assert apply(dsn, versions=versions)
    assert current_and_head(dsn, versions=versions) == ("3000_01_01_0000", "3000_01_01_0000")


def test_failed_migration_is_rolled_back_and_earlier_ones_stay(dsn: str, versions: Path) -> None:
    add(versions, "3000_01_01_0000", "op.execute('CREATE TABLE fine ()')")
    add(versions, "3000_01_02_0000", "op.execute('CREATE TABLE x (); SELECT 1/0')", after="3000_01_01_0000")
    with pytest.raises(MigrationError, match=r"rolled back: .*22012"):
        apply(dsn, versions=versions)
    assert {"fine"} == tables(dsn) & {"fine", "x"}
    assert current_and_head(dsn, versions=versions) == ("3000_01_01_0000", "3000_01_02_0000")


def test_migration_fails_behind_a_long_transaction_and_names_it(dsn: str, versions: Path) -> None:
    add(versions, "3000_01_01_0000", "op.execute('ALTER TABLE tasks ADD COLUMN x int')")
    with psycopg.connect(dsn, application_name="nightly report") as reader:
        reader.execute("SELECT count(*) FROM tasks")
        with pytest.raises(MigrationError, match=rf"pid {reader.info.backend_pid} \(nightly report\)"):
            apply(dsn, versions=versions, retry=LockRetry(lock_timeout=0.05, attempts=2, pause=0.05))
        # No migration waits for the lock any more.
        reader.execute("SELECT count(*) FROM tasks")
    assert not is_current(dsn, versions=versions)
    assert apply(dsn, versions=versions)


def test_migration_is_retried_until_the_blocking_transaction_ends(dsn: str, versions: Path) -> None:
    add(versions, "3000_01_01_0000", "op.execute('ALTER TABLE tasks ADD COLUMN x int')")
    retry = LockRetry(lock_timeout=0.05, attempts=100, pause=0.05)
    with psycopg.connect(dsn) as reader, ThreadPoolExecutor() as threads:
        reader.execute("SELECT count(*) FROM tasks")
        migration = threads.submit(apply, dsn, versions=versions, retry=retry)
        with pytest.raises(TimeoutError):
            migration.result(timeout=0.5)
        reader.rollback()
        assert migration.result(timeout=10)


# From docs/decisions/0003-migrations.md.
BUILD_INDEX = """with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '1min'")
        op.drop_index("ix_tasks_title", "tasks", if_exists=True, postgresql_concurrently=True)
        op.create_index("ix_tasks_title", "tasks", ["title"], postgresql_concurrently=True)
        op.execute("SET lock_timeout = '4s'")"""


def test_index_is_built_concurrently_while_other_processes_wait_for_the_migration(dsn: str, versions: Path) -> None:
    add(versions, "3000_01_01_0000", BUILD_INDEX)
    assert lint(versions) == []
    with ThreadPoolExecutor(3) as threads:
        done = [threads.submit(apply, dsn, versions=versions) for _ in range(3)]
        assert sorted(each.result(timeout=20) for each in done) == [False, False, True]


def test_invalid_index_of_a_failed_attempt_is_built_again(dsn: str, versions: Path) -> None:
    add(versions, "3000_01_01_0000", BUILD_INDEX)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE INDEX ix_tasks_title ON tasks (title)")
        connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_tasks_title'::regclass")
        apply(dsn, versions=versions)
        [(valid,)] = connection.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_tasks_title'::regclass")
    assert valid


def test_apply_without_a_server_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        apply("postgresql://accord@127.0.0.1:1/nothing")


def test_two_last_migrations_are_rejected_with_a_remedy(dsn: str, versions: Path) -> None:
    add(versions, "3000_01_01_0000", "pass")
    add(versions, "3000_01_02_0000", "pass")
    with pytest.raises(MigrationError, match=r'3000_01_02_0000_….py set down_revision = "3000_01_01_0000"'):
        apply(dsn, versions=versions)


def test_every_migration_can_be_reverted_and_applied_again(empty: str) -> None:
    apply(empty)
    for _ in history():
        revert(empty)
    assert tables(empty) == {"alembic_version"}
    assert apply(empty)


def test_revert_without_a_migration_is_an_error(empty: str) -> None:
    with pytest.raises(MigrationError, match="no migration to revert"):
        revert(empty)


# --- drift ------------------------------------------------------------------------------------------------------------
def test_models_and_migrations_describe_the_same_database(postgres: str) -> None:
    assert check_drift(postgres) == []


def test_each_difference_between_models_and_migrations_is_listed(postgres: str) -> None:
    metadata = changed_metadata()
    task = metadata.tables["tasks"]
    task.append_constraint(CheckConstraint("priority > 0", name="priority_positive"))
    Index("ix_tasks_priority", task.c.priority)
    task.c.completed.server_default = None
    assert check_drift(postgres, metadata=metadata) == [
        "only in the models: column tasks.completed boolean NOT NULL",
        "only in the models: column tasks.priority integer",
        "only in the models: constraint tasks.ck_tasks_priority_positive CHECK ((priority > 0))",
        "only in the models: index CREATE INDEX ix_tasks_priority ON public.tasks USING btree (priority)",
        "only in the migrations: column tasks.completed boolean NOT NULL DEFAULT false",
    ]


@pytest.mark.parametrize(
    ("migrated", "modelled", "difference"),
    [
        (Enum("a", "b", name="kind"), Enum("a", "c", name="kind"), "type kind AS ENUM ('a', 'c')"),
        (String(9), String(9, collation="C"), 'column tasks.kind character varying(9) COLLATE "C"'),
    ],
)
def test_difference_of_types_is_listed(
    postgres: str, versions: Path, migrated: String, modelled: String, difference: str
) -> None:
    def with_kind(kind: String) -> MetaData:
        metadata = changed_metadata()
        Table("kinds", metadata, Column("id", Uuid, primary_key=True), Column("kind", kind))
        metadata.tables["tasks"].append_column(Column("kind", kind))
        return metadata

    generate(postgres, "Add kinds", metadata=with_kind(migrated), versions=versions)
    assert f"only in the models: {difference}" in check_drift(postgres, metadata=with_kind(modelled), versions=versions)


def test_default_and_computed_expression_are_different(postgres: str, versions: Path) -> None:
    add(versions, "3000_01_01_0000", "op.execute('ALTER TABLE tasks ADD COLUMN priority int DEFAULT 1 + 1')")
    metadata = copied_metadata()
    metadata.tables["tasks"].append_column(Column("priority", Integer, Computed("1 + 1", persisted=True)))
    assert check_drift(postgres, metadata=metadata, versions=versions) == [
        "only in the models: column tasks.priority integer GENERATED AS (1 + 1)",
        "only in the migrations: column tasks.priority integer DEFAULT (1 + 1)",
    ]


def test_scratch_database_is_dropped_even_if_it_is_in_use(postgres: str) -> None:
    with scratch_database(postgres) as scratch:
        user = psycopg.connect(scratch)
    with pytest.raises(psycopg.OperationalError):
        user.execute("SELECT 1")
    user.close()
    with pytest.raises(Unavailable):
        is_current(scratch)


def copied_metadata() -> MetaData:
    metadata = MetaData(naming_convention=accord_metadata.naming_convention)
    for table in accord_metadata.tables.values():
        table.to_metadata(metadata)
    return metadata


def changed_metadata() -> MetaData:
    """The models with a new column `tasks.priority`."""
    metadata = copied_metadata()
    metadata.tables["tasks"].append_column(Column("priority", Integer))
    return metadata


# --- writing ----------------------------------------------------------------------------------------------------------
def test_generate_writes_a_dated_migration_and_shows_its_sql(postgres: str, dsn: str, versions: Path) -> None:
    draft = generate(postgres, "Add priority", metadata=changed_metadata(), versions=versions)
    assert draft.path.parent == versions
    assert draft.path.match("[0-9][0-9][0-9][0-9]_[0-9][0-9]_[0-9][0-9]_[0-9][0-9][0-9][0-9]_add_priority.py")
    assert "ALTER TABLE tasks ADD COLUMN priority INTEGER" in draft.sql
    assert "CREATE TABLE" not in draft.sql
    assert (draft.is_empty, draft.missing) == (False, [])
    assert draft.warnings == []  # an int32 of the contract is an INTEGER
    assert apply(dsn, versions=versions)
    revert(dsn, versions=versions)
    assert current_and_head(dsn, versions=versions)[0] == HEAD


def test_generate_warns_of_a_statement_that_blocks_writes(postgres: str, versions: Path) -> None:
    metadata = changed_metadata()
    Index("ix_tasks_priority", metadata.tables["tasks"].c.priority)
    draft = generate(postgres, "Index priority", metadata=metadata, versions=versions)
    assert any("require-concurrent-index-creation" in warning for warning in draft.warnings)


def test_databases_migrated_at_the_same_time_share_the_role_of_gateways() -> None:
    with scratch_server() as server, ExitStack() as made:
        empty = [made.enter_context(temporary_database(server)) for _ in range(4)]
        command = [sys.executable, "-m", "accord_db.migrate", "--database-url"]
        processes = [subprocess.Popen([*command, dsn, "apply"]) for dsn in empty]
        assert [process.wait() for process in processes] == [0] * len(empty)
        assert [role_problem(dsn, GATEWAY_ROLE) for dsn in empty] == [None] * len(empty)


def test_generate_writes_the_policies_of_new_tenant_bound_tables(postgres: str, dsn: str, versions: Path) -> None:
    metadata = changed_metadata()
    organization_id = Column("organization_id", Uuid, ForeignKey("organizations.id"), nullable=False)
    Table("notes", metadata, Column("id", Uuid, primary_key=True), organization_id)
    note_id = Column("note_id", Uuid, ForeignKey("notes.id"), nullable=False)
    Table("note_items", metadata, Column("id", Uuid, primary_key=True), note_id)
    draft = generate(postgres, "Add notes", metadata=metadata, versions=versions)
    assert draft.missing == []
    assert "CREATE POLICY tenant ON notes USING (organization_id = " in draft.sql
    assert (
        "CREATE POLICY tenant ON note_items USING ((SELECT true FROM notes WHERE notes.id = note_items.note_id))"
        in draft.sql
    )
    for name in ("notes", "note_items"):
        assert f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY" in draft.sql
    assert apply(dsn, versions=versions)
    revert(dsn, versions=versions)


def test_generate_writes_the_postgresql_type_of_an_address(postgres: str, dsn: str, versions: Path) -> None:
    metadata = changed_metadata()
    Table("letters", metadata, Column("id", Uuid, primary_key=True), Column("email", EmailAddress, nullable=False))
    draft = generate(postgres, "Add letters", metadata=metadata, versions=versions)
    assert draft.missing == []
    assert 'sa.Column("email", sa.String(length=254), nullable=False)' in draft.path.read_text()
    assert apply(dsn, versions=versions)


def test_check_command_lists_tables_without_a_tenant_or_a_reason(
    postgres: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    metadata = changed_metadata()
    Table("made", metadata, Column("id", Uuid, primary_key=True))
    monkeypatch.setattr(command_line, "metadata", metadata)
    monkeypatch.setattr(sys, "argv", ["migrate", "--database-url", postgres, "check"])
    assert command_line.main() == 1
    assert capsys.readouterr().out.startswith("no tenant: table made has no row-level security: ")


class Color(StrEnum):
    RED = "red"
    GREEN = "green"


class LongerColor(StrEnum):
    RED = "red"
    TURQUOISE = "turquoise"


class Shortened(TypeDecorator[str]):
    """A type of the application."""

    impl = String(7)
    cache_ok = True


def enum(kind: type[StrEnum]) -> Enum:
    return Enum(
        kind, name="color", native_enum=False, create_constraint=True, values_callable=lambda kind: list(map(str, kind))
    )


def with_notes(*, color: type[StrEnum] = Color, computed: str = "2 * char_length(text)", **defaults: str) -> MetaData:
    """The models with `tasks.color` and a table with columns of each kind."""
    metadata = copied_metadata()
    metadata.tables["tasks"].append_column(Column("color", enum(color)))
    Table(
        "notes",
        metadata,
        Column("id", Uuid, primary_key=True),
        Column("organization_id", Uuid, ForeignKey("organizations.id"), nullable=False),
        Column("text", Text, nullable=False, server_default=defaults.get("text")),
        Column("color", enum(color), nullable=False, server_default="red"),
        Column("colors", ARRAY(Enum(color, native_enum=False, length=9)), server_default=sql_text("'{}'")),
        Column("code", Shortened),
        Column("data", JSON, nullable=False, server_default=sql_text(defaults.get("data", "'{}'"))),
        Column("more", JSONB, server_default=sql_text(defaults.get("more", "'{}'"))),
        Column("tags", ARRAY(Text), nullable=False, server_default=sql_text(defaults.get("tags", "'{}'::text[]"))),
        Column("numbers", ARRAY(BigInteger)),
        Column("length", BigInteger, Computed(computed, persisted=True)),
        Column("created_at", DateTime(timezone=True), server_default=func.now()),
        CheckConstraint(defaults.get("check", "text <> 'a:b'"), name="text_not_empty"),
    )
    return metadata


@pytest.fixture(scope="module")
def generated(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Draft]:
    """The migrations, with one for `with_notes()`."""
    folder = tmp_path_factory.mktemp("generated") / "versions"
    shutil.copytree(VERSIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder, generate(postgres, "Add notes", metadata=with_notes(), versions=folder)


@pytest.fixture
def noted(generated: tuple[Path, Draft], tmp_path: Path) -> Path:
    """A copy of the folder, to which a test adds others."""
    return Path(shutil.copytree(generated[0], tmp_path / "noted", ignore=shutil.ignore_patterns("__pycache__")))


def test_generate_writes_columns_of_every_kind(postgres: str, dsn: str, generated: tuple[Path, Draft]) -> None:
    versions, draft = generated
    assert (draft.missing, draft.warnings) == ([], [])
    assert "CHECK (color IN ('red', 'green'))" in draft.sql
    source = draft.path.read_text()
    assert "ck_notes_color" in source
    assert "ck_tasks_color" in source
    assert "Enum" not in source
    assert "Shortened" not in source
    assert "by hand" not in source
    assert lint(versions) == []
    assert check_drift(postgres, metadata=with_notes(), versions=versions) == []
    assert apply(dsn, versions=versions)
    revert(dsn, versions=versions)
    revert(dsn, versions=versions)
    assert current_and_head(dsn, versions=versions)[0] == HEAD


def test_generate_without_a_change_of_columns_of_every_kind_is_empty(postgres: str, noted: Path) -> None:
    draft = generate(postgres, "Nothing", metadata=with_notes(), versions=noted)
    assert draft.is_empty
    assert draft.missing == []


def test_generate_validates_checks_of_existing_tables_in_a_separate_migration(
    generated: tuple[Path, Draft],
) -> None:
    """One transaction would hold the lock of ADD CONSTRAINT while it reads the rows."""
    versions, draft = generated
    assert "ADD CONSTRAINT ck_tasks_color CHECK (color IN ('red', 'green')) NOT VALID" in draft.path.read_text()
    assert draft.validation is not None
    assert "VALIDATE CONSTRAINT ck_tasks_color" in draft.validation.read_text()
    assert "ck_notes" not in draft.validation.read_text()
    assert [script.doc for script in history(versions)][-2:] == ["Add notes", "Validate Add notes"]


def test_generate_changes_enums_checks_and_defaults(postgres: str, dsn: str, noted: Path) -> None:
    changed = with_notes(
        color=LongerColor,
        check="text <> 'c:d'",
        text="none",
        data="'[]'",
        more="""'{"a": 1}'""",
        tags="'{new}'::text[]",
    )
    draft = generate(postgres, "Change notes", metadata=changed, versions=noted)
    assert draft.missing == []
    assert draft.warnings == []
    assert check_drift(postgres, metadata=changed, versions=noted) == []
    assert lint(noted) == []
    source = draft.path.read_text()
    assert "ban-drop-constraint" in source
    assert "replaced in this migration" in source
    assert "a longer varchar" in source
    assert "by hand" not in source
    apply(dsn, versions=noted)
    for _ in range(4):
        revert(dsn, versions=noted)
    assert current_and_head(dsn, versions=noted)[0] == HEAD


def test_generate_removes_enums_and_checks_and_leaves_the_reason_to_the_author(
    postgres: str, dsn: str, noted: Path
) -> None:
    draft = generate(postgres, "Remove notes", metadata=copied_metadata(), versions=noted)
    assert draft.missing == []
    assert draft.validation is None
    source = draft.path.read_text()
    assert "a reason for ban-drop-column in `unsafe`, or another statement" in source
    assert "unsafe = {" not in source
    apply(dsn, versions=noted)
    for _ in range(3):
        revert(dsn, versions=noted)
    assert current_and_head(dsn, versions=noted)[0] == HEAD


def test_generate_comments_what_it_cannot_write(postgres: str, noted: Path) -> None:
    """PostgreSQL 15 and 16 cannot change the expression of a computed column."""
    changed = with_notes(computed="3 * char_length(text)")
    draft = generate(postgres, "Change notes", metadata=changed, versions=noted)
    assert [line.partition(" GENERATED AS ")[0] for line in draft.missing] == [
        "only in the models: column notes.length bigint",
        "only in the migrations: column notes.length bigint",
    ]
    comment = draft.path.read_text().partition("`make check` rejects this migration. Write by hand:\n")[2]
    assert comment.count("    #   only in the ") == 2


def test_generate_comments_a_migration_that_does_not_run(postgres: str, versions: Path) -> None:
    metadata = changed_metadata()
    metadata.tables["tasks"].c.completed.type = Uuid()
    metadata.tables["tasks"].c.completed.server_default = None
    draft = generate(postgres, "Change tasks", metadata=metadata, versions=versions)
    [missing] = draft.missing
    assert missing.startswith("it does not run: ")
    assert "cannot be cast automatically to type uuid" in missing
    assert f"#   {missing}" in draft.path.read_text()


def test_models_that_postgresql_rejects_are_reported(postgres: str, versions: Path) -> None:
    metadata = changed_metadata()
    metadata.tables["tasks"].append_constraint(CheckConstraint("nothing > 1", name="nothing"))
    with pytest.raises(MigrationError, match='the models cannot be created: column "nothing" does not exist'):
        generate(postgres, "Add nothing", metadata=metadata, versions=versions)
    assert {path.name for path in versions.glob("*.py")} == {path.name for path in VERSIONS.glob("*.py")}


def test_generate_without_a_change_writes_an_empty_migration(postgres: str, versions: Path) -> None:
    draft = generate(postgres, "Fill something in", versions=versions)
    assert draft.is_empty
    assert draft.warnings == []


def test_migrations_of_the_same_minute_have_different_names(postgres: str, versions: Path) -> None:
    first = generate(postgres, "First", versions=versions)
    second = generate(postgres, "Second", versions=versions)
    assert first.path.name[:15] < second.path.name[:15]
    assert [script.doc for script in history(versions)][-2:] == ["First", "Second"]


def test_sql_of_all_migrations_creates_the_same_database(empty: str) -> None:
    with psycopg.connect(empty, autocommit=True) as connection:
        for statement in sql().split(";\n\n"):  # one at a time, like psql: CREATE INDEX CONCURRENTLY requires it
            connection.execute(statement.encode())
    assert is_current(empty)


def test_sql_command_prints_the_sql() -> None:
    command = [sys.executable, "-m", "accord_db.migrate", "sql"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == sql().strip()


def test_failed_command_prints_the_error_without_a_traceback() -> None:
    command = [sys.executable, "-m", "accord_db.migrate", "--database-url", "postgresql://127.0.0.1:1/x", "apply"]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: ")
    assert "Traceback" not in failed.stderr


# --- lint -------------------------------------------------------------------------------------------------------------
UNSAFE = "op.execute('ALTER TABLE tasks ADD COLUMN x bigint NOT NULL')"


def test_migrations_of_accord_are_safe_on_a_database_in_use() -> None:
    assert lint() == []


def test_unsafe_migration_is_listed_with_the_rule(versions: Path) -> None:
    add(versions, "3000_01_01_0000", UNSAFE)
    [warning] = lint(versions)
    assert "3000_01_01_0000_added.py" in warning
    assert "adding-required-field" in warning


def test_unsafe_migration_with_a_reason_is_accepted(versions: Path) -> None:
    add(versions, "3000_01_01_0000", UNSAFE, more="unsafe = {'adding-required-field': 'the table is empty'}")
    assert lint(versions) == []


def test_unsafe_migration_without_a_reason_is_an_error(versions: Path) -> None:
    add(versions, "3000_01_01_0000", UNSAFE, more="unsafe = {'adding-required-field': ''}")
    with pytest.raises(MigrationError, match="needs a reason for adding-required-field"):
        lint(versions)


# --- registration -----------------------------------------------------------------------------------------------------
def test_table_whose_module_is_not_imported_elsewhere_is_compared(postgres: str, tmp_path: Path) -> None:
    package = Path(shutil.copytree(Path(accord_db.__file__).parent, tmp_path / "accord_db"))
    (package / "schema/notes.py").write_text(
        "from accord_db.engine.model import Id, Model\n"
        "from sqlalchemy.orm import Mapped\n\n\n"
        'class Note(Model):\n    __tablename__ = "notes"\n    id: Mapped[Id]\n'
    )
    check = [sys.executable, "-m", "accord_db.migrate", "--database-url", postgres, "check"]
    done = subprocess.run(check, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert "models and migrations differ: only in the models: column notes.id uuid NOT NULL" in done.stdout
    assert done.returncode == 1
