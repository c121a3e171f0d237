"""Row-level security: statements without a predicate for the tenant find only rows of the tenant."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import (
    Column,
    ForeignKey,
    MetaData,
    Table,
    Uuid,
    bindparam,
    delete,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy import text as sql_text
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from accord_db import queries
from accord_db.engine.database import Database
from accord_db.engine.errors import DatabaseError
from accord_db.engine.ids import uuid7
from accord_db.engine.row_level_security import (
    GATEWAY_ROLE,
    enable_row_level_security,
    is_tenant_bound,
    tenant_exempt,
    tenant_problems,
)
from accord_db.engine.scope import NoTenant, acting_for, set_tenant
from accord_db.migrate.drift import check_drift
from accord_db.migrate.gateway_role import role_problem
from accord_db.queries import tasks
from accord_db.schema import Account, Member, Organization, Role, Task, metadata
from tests.conftest import Connect, execute
from tests.db.conftest import NewAccount
from tests.rows import Row, can_be_of_organization, of_tenant, row_of

pytestmark = pytest.mark.every_feature

# Accord's tables, and examples of kinds that it does not have: children, grandchildren, links of two parents, and a table of
# personal rows.
EXAMPLES = MetaData(naming_convention=metadata.naming_convention)
for table in metadata.sorted_tables:
    table.to_metadata(EXAMPLES)


def example(name: str, *references: str) -> Table:
    table = Table(name, EXAMPLES, Column("id", Uuid, primary_key=True))
    for column, target in map(str.split, references):
        table.append_column(Column(column, ForeignKey(target, ondelete="CASCADE"), nullable=False))
    return table


NOTES = example("example_notes", "organization_id organizations.id")
TAGS = example("example_tags", "organization_id organizations.id")
NOTE_ITEMS = example("example_note_items", "note_id example_notes.id")
NOTE_ITEM_MARKS = example("example_note_item_marks", "note_item_id example_note_items.id")
NOTE_TAGS = example("example_note_tags", "note_id example_notes.id", "tag_id example_tags.id")
DRAFTS = example("example_drafts", "owner_id accounts.id")

# Parents before children.
TENANT_BOUND = [table for table in EXAMPLES.sorted_tables if is_tenant_bound(table)]
SETTING = select(func.current_setting("accord.tenant", literal(True)))


@pytest.fixture
def examples(dsn: str) -> None:
    made = [table for table in EXAMPLES.sorted_tables if table.name not in metadata.tables]
    with psycopg.connect(dsn, autocommit=True) as connection:
        for table in made:
            ddl = str(CreateTable(table).compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]
            connection.execute("; ".join([ddl, *enable_row_level_security(table)]).encode())


@dataclass(frozen=True)
class Tenant:
    """An organization with its only member, and a row in each table of either."""

    id: UUID
    account: Account
    # By name of the table.
    rows: dict[str, Row]

    def tenant_of(self, table: Table) -> UUID:
        return self.id if can_be_of_organization(table) else self.account.id

    def new_row(self, table: Table) -> Row:
        row = row_of(table, self.rows, organization_id=self.id)
        return row | ({"id": uuid7()} if "id" in row else {})


async def make_tenant(database: Database, account: Account) -> Tenant:
    organization = row_of(EXAMPLES.tables["organizations"], {})
    await database.execute(insert(Organization).values(organization))
    tenant = Tenant(organization["id"], account, {"organizations": organization, "accounts": {"id": account.id}})
    for table in TENANT_BOUND:
        tenant.rows[table.name] = tenant.new_row(table)
        await database.execute(insert(table).values(tenant.rows[table.name]))
    return tenant


@pytest.fixture
async def ours(database: Database, new_account: NewAccount, examples: None) -> Tenant:
    return await make_tenant(database, await new_account())


@pytest.fixture
async def theirs(database: Database, new_account: NewAccount, examples: None) -> Tenant:
    return await make_tenant(database, await new_account())


async def found(database: Database, table: Table) -> set[Any]:
    """The primary keys of all rows that a query without a predicate finds."""
    return set(map(tuple, await database.fetch_all(select(*table.primary_key, literal(1)))))


def key(tenant: Tenant, table: Table) -> Any:
    return (*(tenant.rows[table.name][column.name] for column in table.primary_key), 1)


# --- a query without its predicate ------------------------------------------------------------------------------------
def test_there_are_tenant_bound_tables_and_examples_of_each_kind() -> None:
    names = {table.name for table in TENANT_BOUND}
    assert {
        "tasks",
        "example_notes",
        "example_note_items",
        "example_note_item_marks",
        "example_note_tags",
        "example_drafts",
    } <= names
    assert "accounts" not in names


async def test_rows_of_another_tenant_are_not_found(database: Database, ours: Tenant, theirs: Tenant) -> None:
    for table in TENANT_BOUND:
        with acting_for(ours.tenant_of(table)):
            assert await found(database, table) == {key(ours, table)}
        assert await found(database, table) == {key(ours, table), key(theirs, table)}  # fixtures set the tenant `all`
        same = select(*table.primary_key, literal(1)).where(of_tenant(table, ours.tenant_of(table)))
        assert list(map(tuple, await database.fetch_all(same))) == [key(ours, table)]


async def test_rows_of_another_tenant_are_not_deleted(database: Database, ours: Tenant, theirs: Tenant) -> None:
    for table in reversed(TENANT_BOUND):  # children first
        with acting_for(ours.tenant_of(table)):
            assert await database.execute(delete(table)) == 1, table.name
        assert await found(database, table) == {key(theirs, table)}


async def test_insert_of_a_row_of_another_tenant_is_denied(database: Database, ours: Tenant, theirs: Tenant) -> None:
    for table in TENANT_BOUND:
        with acting_for(ours.tenant_of(table)), pytest.raises(DatabaseError) as caught:
            await database.execute(insert(table).values(theirs.new_row(table)))
        assert caught.value.sqlstate == "42501", table.name
        assert await found(database, table) == {key(ours, table), key(theirs, table)}


async def test_without_a_tenant_statements_raise_and_sql_finds_no_rows(database: Database, ours: Tenant) -> None:
    set_tenant(None)
    for table in TENANT_BOUND:
        for statement in (select(*table.c), insert(table).values(ours.new_row(table)), delete(table)):
            with pytest.raises(NoTenant):
                await database.execute(statement)
        assert await database.fetch_one(select(func.count()).select_from(sql_text(table.name))) == 0
    assert len(await database.fetch_all(select(Account))) == 1


async def test_rows_of_another_tenant_are_not_updated(database: Database, ours: Tenant, theirs: Tenant) -> None:
    with acting_for(ours.id):
        assert await database.execute(update(Task).values(title="ours")) == 1
    assert sorted(await database.fetch_all(select(Task.title))) == sorted(["ours", theirs.rows["tasks"]["title"]])


async def test_row_cannot_be_moved_to_another_tenant(database: Database, ours: Tenant, theirs: Tenant) -> None:
    with acting_for(ours.id), pytest.raises(DatabaseError) as caught:
        await database.execute(update(Task).values(organization_id=theirs.id))
    assert caught.value.sqlstate == "42501"


async def test_child_cannot_be_moved_to_a_parent_of_another_tenant(
    database: Database, ours: Tenant, theirs: Tenant
) -> None:
    with acting_for(ours.id), pytest.raises(DatabaseError) as caught:
        await database.execute(update(NOTE_ITEMS).values(note_id=theirs.rows["example_notes"]["id"]))
    assert caught.value.sqlstate == "42501"


@pytest.mark.parametrize(("note", "tag"), [("ours", "theirs"), ("theirs", "ours")])
async def test_link_to_a_parent_of_another_tenant_is_denied(
    database: Database, ours: Tenant, theirs: Tenant, note: str, tag: str
) -> None:
    of = {"ours": ours, "theirs": theirs}
    link = {
        "id": uuid7(),
        "note_id": of[note].rows["example_notes"]["id"],
        "tag_id": of[tag].rows["example_tags"]["id"],
    }
    with acting_for(ours.id), pytest.raises(DatabaseError) as caught:
        await database.execute(insert(NOTE_TAGS).values(link))
    assert caught.value.sqlstate == "42501"


async def test_parent_and_child_can_be_inserted_in_one_transaction_and_deleted_by_cascade(
    database: Database, ours: Tenant
) -> None:
    note_id = uuid7()
    with acting_for(ours.id):
        async with database.transaction() as tx:
            await tx.execute(insert(NOTES).values(id=note_id, organization_id=ours.id))
            await tx.execute(insert(NOTE_ITEMS).values(id=uuid7(), note_id=note_id))
        assert len(await found(database, NOTE_ITEMS)) == 2
        assert await database.execute(delete(NOTES).where(NOTES.c.id == note_id)) == 1
        assert len(await found(database, NOTE_ITEMS)) == 1


async def test_row_level_security_applies_to_joined_tables(database: Database, ours: Tenant, theirs: Tenant) -> None:
    of_all = select(Organization.id, Member.account_id).join(Member, Member.organization_id == Organization.id)
    with acting_for(ours.id):
        assert await database.fetch_all(of_all) == [(ours.id, ours.account.id)]


async def test_account_without_an_organization_finds_its_personal_rows(database: Database, ours: Tenant) -> None:
    mine = await tasks.insert_task(database, task_id=uuid7(), created_by=ours.account.id, title="mine")
    with acting_for(ours.account.id):
        assert await database.fetch_all(select(Task)) == [mine]


# --- the tenant of a statement ------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("ours")
async def test_sql_text_without_a_tenant_finds_no_rows(database: Database) -> None:
    """Its tables are unknown, so that no tenant is set, also in a transaction after a statement across tenants."""
    count = select(func.count()).select_from(sql_text("tasks"))
    assert await database.fetch_one(count) == 0
    async with database.transaction() as tx:
        assert await tx.fetch_all(select(Task).execution_options(across_tenants=True))
        assert await tx.fetch_one(count) == 0


async def test_across_tenants_applies_to_one_statement(database: Database, ours: Tenant, theirs: Tenant) -> None:
    across_tenants = select(Task.owner_id).execution_options(across_tenants=True)
    with acting_for(ours.id):
        assert set(await database.fetch_all(across_tenants)) == {ours.id, theirs.id}
        async with database.transaction() as tx:
            for _ in range(2):
                assert await tx.fetch_all(select(Task.owner_id)) == [ours.id]
                assert set(await tx.fetch_all(across_tenants)) == {ours.id, theirs.id}


async def test_transaction_can_switch_tenants(database: Database, ours: Tenant, theirs: Tenant) -> None:
    async with database.transaction() as tx:
        for tenant in (ours, theirs, ours):
            with acting_for(tenant.id):
                assert await tx.fetch_all(select(Task.owner_id)) == [tenant.id]


# --- the setting accord.tenant ------------------------------------------------------------------------------------------
async def test_tenant_does_not_stay_on_the_connection(connect: Connect, ours: Tenant) -> None:
    database = await connect(pool_size=1)
    twice = insert(Task).values(id=bindparam("id"), title="x", created_by=ours.account.id, organization_id=ours.id)
    task_id = uuid7()
    with acting_for(ours.id):
        await database.execute(twice, id=task_id)
        assert not await database.fetch_one(SETTING)
        with pytest.raises(DatabaseError):
            await database.execute(twice, id=task_id)
        assert not await database.fetch_one(SETTING)
        async with database.transaction() as tx:
            await tx.fetch_all(select(Task))
            assert await tx.fetch_one(SETTING) == str(ours.id)
        assert not await database.fetch_one(SETTING)
        with pytest.raises(DatabaseError):
            async with database.transaction() as tx:
                await tx.execute(twice, id=task_id)
        assert not await database.fetch_one(SETTING)


async def test_statements_on_exempt_tables_set_no_tenant(connect: Connect, ours: Tenant) -> None:
    database = await connect(pool_size=1)
    with acting_for(ours.id):
        await database.fetch_all(select(Account))
        async with database.transaction() as tx:
            await tx.fetch_all(select(Account))
    assert await times_set(database) == 0


async def test_transaction_sets_the_tenant_once(connect: Connect, ours: Tenant) -> None:
    database = await connect(pool_size=1)
    with acting_for(ours.id):
        async with database.transaction() as tx:
            for statement in (select(Account), select(Task), select(Account), select(Role), select(Task)):
                await tx.fetch_all(statement)
    assert await times_set(database) == 1


async def times_set(database: Database) -> int:
    """How often the only connection of this pool has set the tenant."""
    plans = sql_text("coalesce(sum(generic_plans + custom_plans), 0)::int")
    executions = (
        select(plans)
        .select_from(sql_text("pg_prepared_statements"))
        .where(sql_text("statement LIKE 'SELECT set_config(%'"))
    )
    return await database.fetch_one(executions) or 0


async def test_statement_is_repeated_with_its_tenant_after_a_table_has_changed(
    connect: Connect, ours: Tenant, dsn: str
) -> None:
    database, statement = await connect(pool_size=1), select(Task)
    with acting_for(ours.id):
        before = await database.fetch_all(statement)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("ALTER TABLE tasks ALTER COLUMN title TYPE varchar(300)")
        assert await database.fetch_all(statement) == before != []


# --- indexes ----------------------------------------------------------------------------------------------------------
def test_policy_keeps_indexes_in_use_and_is_evaluated_once_per_statement(dsn: str) -> None:
    owner_id = uuid7()
    with psycopg.connect(dsn) as connection:
        connection.execute("""
            INSERT INTO tasks (id, title, created_by, created_at)
            SELECT gen_random_uuid(), 'x', owner, now() - n * interval '1 minute'
            FROM generate_series(1, 200) n, (SELECT gen_random_uuid() FROM generate_series(1, 100)) owners (owner)
        """)
        connection.execute("ANALYZE tasks")
        connection.execute("SET ROLE accord_gateway")
        connection.execute("SELECT set_config('accord.tenant', %s, true)", [str(owner_id)])
        plan = explained(
            connection,
            f"SELECT * FROM tasks WHERE owner_id = '{owner_id}' AND deleted_at IS NULL AND created_at < now() "
            "ORDER BY created_at DESC, id DESC LIMIT 21",
        )
        assert "Index Scan Backward using ix_tasks_owner_id_created_at_id" in plan
        assert "Sort" not in plan
        assert "InitPlan" in plan
        assert "current_setting" not in plan.split("InitPlan")[0]
        one = explained(connection, f"SELECT * FROM tasks WHERE id = '{uuid7()}' AND owner_id = '{owner_id}'")
        assert "Index Scan using" in one


@pytest.mark.usefixtures("examples")
def test_policy_of_a_child_looks_up_its_parent_by_index(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("""
            WITH made AS (INSERT INTO organizations (id, name, slug) VALUES (gen_random_uuid(), 'x', 'x') RETURNING id)
            INSERT INTO example_notes (id, organization_id) SELECT gen_random_uuid(), id FROM made, generate_series(1, 5000)
        """)
        connection.execute("""
            INSERT INTO example_note_items (id, note_id)
            SELECT gen_random_uuid(), id FROM (SELECT id FROM example_notes LIMIT 5) AS few, generate_series(1, 2000)
        """)
        note = connection.execute("SELECT note_id FROM example_note_items LIMIT 1").fetchone()
        assert note is not None
        connection.execute("CREATE INDEX ON example_note_items (note_id)")
        connection.execute("ANALYZE example_notes, example_note_items")
        connection.execute("SET ROLE accord_gateway")
        plan = explained(connection, f"SELECT * FROM example_note_items WHERE note_id = '{note[0]}'")
        assert "Index Scan using pk_example_notes on example_notes" in plan
        assert "Seq Scan" not in plan
        assert "hashed" not in plan


def explained(connection: "psycopg.Connection[Any]", statement: str) -> str:
    return "\n".join(line for (line,) in connection.execute(f"EXPLAIN (COSTS OFF) {statement}".encode()))


# --- the role ---------------------------------------------------------------------------------------------------------
async def test_role_of_the_gateway_is_subject_to_row_level_security(database: Database, dsn: str) -> None:
    assert await database.fetch_one(select(func.current_user())) == GATEWAY_ROLE
    assert role_problem(dsn, GATEWAY_ROLE) is None


async def test_force_applies_policies_to_the_owner_which_is_reported(
    database: Database, dsn: str, ours: Tenant, theirs: Tenant
) -> None:
    execute(dsn, psycopg.sql.SQL("ALTER TABLE tasks OWNER TO accord_gateway"))
    with acting_for(ours.id):
        assert await database.fetch_all(select(Task.owner_id)) == [ours.id]
    fault = role_problem(dsn, GATEWAY_ROLE)
    assert fault is not None
    assert fault.problem == '"accord_gateway" bypasses the row-level security of tasks'


def test_superuser_is_reported(dsn: str) -> None:
    """The login role of the embedded PostgreSQL is a superuser."""
    fault = role_problem(dsn, None)
    assert fault is not None
    for table in metadata.sorted_tables:
        assert (table.name in fault.problem) == is_tenant_bound(table)


def test_disabled_row_level_security_is_reported(dsn: str) -> None:
    execute(dsn, psycopg.sql.SQL("ALTER TABLE roles DISABLE ROW LEVEL SECURITY"))
    fault = role_problem(dsn, GATEWAY_ROLE)
    assert fault is not None
    assert fault.problem.endswith("row-level security of roles")


def test_missing_role_is_reported_with_the_statement_that_creates_it(dsn: str) -> None:
    fault = role_problem(dsn, "missing_role")
    assert fault is not None
    assert "CREATE ROLE missing_role NOLOGIN" in fault.remedy


# --- every table ------------------------------------------------------------------------------------------------------
def test_every_table_is_tenant_bound_or_states_why_it_is_exempt(dsn: str) -> None:
    assert tenant_problems(metadata) == []
    tenant_bound = {table.name for table in metadata.sorted_tables if is_tenant_bound(table)}
    exempt = {
        table.name: table.info["tenant_exempt"] for table in metadata.sorted_tables if "tenant_exempt" in table.info
    }
    assert tenant_bound | exempt.keys() == metadata.tables.keys()
    assert "tasks" in tenant_bound
    assert "accounts" in exempt
    assert tables_with_a_forced_policy(dsn) & metadata.tables.keys() == tenant_bound


def tables_with_a_forced_policy(dsn: str) -> set[str]:
    with psycopg.connect(dsn) as connection:
        query = """
            SELECT relname FROM pg_class JOIN pg_policies ON tablename = relname AND schemaname = 'public'
            WHERE relnamespace = 'public'::regnamespace AND relrowsecurity AND relforcerowsecurity
        """
        return {name for (name,) in connection.execute(query)}


def fk(name: str, target: str, *, nullable: bool = False) -> "Column[Any]":
    return Column(name, Uuid, ForeignKey(target), nullable=nullable)


@pytest.mark.parametrize(
    ("columns", "arguments"),
    [
        ([], {}),
        ([Column("organization_id", Uuid, nullable=True)], {}),
        ([Column("owner_id", Uuid, nullable=True)], {}),
        ([fk("account_id", "accounts.id")], {}),  # a parent that is exempt
        ([fk("task_id", "tasks.id", nullable=True)], {}),  # without a parent, a row has no tenant
        ([fk("id", "made.other")], {}),
        ([], tenant_exempt(" ")),
    ],
)
def test_table_without_a_tenant_or_a_reason_is_a_problem(columns: list[Any], arguments: dict[str, Any]) -> None:
    (problem,) = tenant_problems(with_table(*columns, **arguments))
    assert problem.startswith("table made has no row-level security: ")
    assert 'tenant_exempt("reason")' in problem


@pytest.mark.parametrize(
    "columns",
    [
        [Column("organization_id", Uuid, nullable=False)],
        [Column("owner_id", Uuid, nullable=False)],
        [fk("task_id", "tasks.id")],
        [Column("owner_id", Uuid, nullable=True), fk("task_id", "tasks.id")],
    ],
)
def test_tenant_bound_table_must_not_be_exempt(columns: list["Column[Any]"]) -> None:
    extended = with_table(*columns)
    assert tenant_problems(extended) == []
    extended.tables["made"].info |= tenant_exempt("all tenants may see it")["info"]
    assert tenant_problems(extended) == ["table made is tenant-bound. Remove tenant_exempt() from its __table_args__"]


def with_table(*columns: "Column[Any]", **arguments: Any) -> MetaData:
    extended = MetaData(naming_convention=metadata.naming_convention)
    for table in metadata.sorted_tables:
        table.to_metadata(extended)
    keys = () if any(column.name == "id" for column in columns) else (Column("id", Uuid, primary_key=True),)
    Table("made", extended, *keys, Column("other", Uuid, unique=True), *columns, **arguments)
    return extended


@pytest.mark.parametrize(
    "column", [fk("organization_id", "organizations.id"), fk("task_id", "tasks.id")], ids=["own", "parent"]
)
def test_new_tenant_bound_table_without_a_policy_is_drift(postgres: str, column: "Column[Any]") -> None:
    drift = check_drift(postgres, metadata=with_table(column))
    assert "only in the models: row-level security of made, forced" in drift
    assert any(line.startswith("only in the models: policy made.tenant") for line in drift)


# --- statements across tenants ------------------------------------------------------------------------------------------
ACROSS_TENANTS = {
    "api_keys._LIST_LIVE": "the lookup of a key finds its organization",
    "api_keys._UPDATE_USE": "runs with that lookup, before the tenant is known",
    "cleanup._expired_rows": "the clean-up is not part of a call",
    "invitations._LOCK_RECEIVED": "an invited account is not a member yet",
    "invitations._RECEIVED_LISTING": "an invited account is not a member yet",
    "members._DELETE_OF_ACCOUNT": "the deletion of an account ends all its memberships",
    "members._GET_SOLELY_OWNED": "it must not leave an organization without an owner",
    "members._LOCK_ORGANIZATIONS": "it locks these organizations first",
    "organizations._OF_MEMBER": "an account sees all its organizations, whichever is active",
    "sessions._GET_DELEGATED": "the lookup of a session finds its account and organization",
    "sessions._GET_LIVE": "the lookup of a session finds its account and organization",
    "sessions._LIST_LIVE": "the lookup of a session finds its account and organization",
}


def test_each_statement_across_tenants_has_a_reason() -> None:
    assert set(statements_across_tenants()) == set(ACROSS_TENANTS)


def statements_across_tenants() -> Iterator[str]:
    for file in Path(queries.__path__[0]).glob("*.py"):
        for statement in ast.parse(file.read_text()).body:
            if "across_tenants" in ast.unparse(statement):
                yield f"{file.stem}.{_name(statement)}"


def _name(statement: ast.stmt) -> str:
    if isinstance(statement, ast.Assign):
        return ast.unparse(statement.targets[0])
    assert isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.AnnAssign)
    return statement.name if not isinstance(statement, ast.AnnAssign) else ast.unparse(statement.target)


def test_only_queries_use_across_tenants_and_no_code_sets_the_tenant_all() -> None:
    root = Path(__file__).resolve().parents[2]
    offenders = [
        file.name
        for folder in ("packages", "services")
        for file in (root / folder).rglob("*.py")
        if ("across_tenants=" in (text := file.read_text()) and file.parent.name != "queries")
        or 'set_tenant("all")' in text
    ]
    assert offenders == []
