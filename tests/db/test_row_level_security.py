"""The second wall between tenants: what a question finds that forgot whose rows it is about."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import (
    Column,
    ForeignKey,
    Integer,
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

from accord_db import queries
from accord_db.engine.database import Database
from accord_db.engine.errors import DatabaseError
from accord_db.engine.ids import uuid7
from accord_db.engine.model import Model
from accord_db.engine.row_level_security import GATEWAY_ROLE, tenant_column
from accord_db.engine.scope import NoTenant, acting_for, set_tenant
from accord_db.migrate.drift import check_drift
from accord_db.migrate.gateway_role import role_problem
from accord_db.queries import tasks
from accord_db.schema import (
    Account,
    ApiKey,
    Invitation,
    Member,
    MemberRole,
    Organization,
    Role,
    Task,
    metadata,
)
from tests.conftest import Connect, execute
from tests.db.conftest import NewAccount

# In an order in which rows of them can be made.
WALLED: tuple[type[Model], ...] = (Role, Member, MemberRole, Invitation, ApiKey, Task)
SETTING = select(func.current_setting("accord.tenant", literal(True)))
each_table = pytest.mark.parametrize("model", WALLED, ids=[model.__tablename__ for model in WALLED])


@dataclass(frozen=True)
class Tenant:
    """An organization with a row in each of the tables."""

    id: Any
    account: Account
    role_id: Any

    def row(self, model: type[Model]) -> dict[str, Any]:
        own = {"organization_id": self.id}
        return {
            Role: own | {"id": uuid7(), "name": f"Role {uuid7()}", "permissions": []},
            Member: own | {"account_id": self.account.id, "role": "owner"},
            MemberRole: own | {"account_id": self.account.id, "role_id": self.role_id},
            Invitation: own
            | {"id": uuid7(), "email": "x@example.com", "role_ids": [], "token_hash": uuid7().bytes * 2}
            | {"created_by": self.account.id, "expires_at": func.now()},
            ApiKey: own
            | {"id": uuid7(), "created_by": self.account.id, "name": "x", "prefix": "x", "scopes": []}
            | {"key_hash": uuid7().bytes * 2},
            Task: own | {"id": uuid7(), "created_by": self.account.id, "title": "x"},
        }[model]


async def make_tenant(database: Database, account: Account) -> Tenant:
    tenant = Tenant(uuid7(), account, uuid7())
    await database.execute(insert(Organization).values(id=tenant.id, name="x", slug=f"slug-{tenant.id}"))
    for model in WALLED:
        row = tenant.row(model) | ({"id": tenant.role_id} if model is Role else {})
        await database.execute(insert(model).values(row))
    return tenant


@pytest.fixture
async def ours(database: Database, new_account: NewAccount) -> Tenant:
    return await make_tenant(database, await new_account())


@pytest.fixture
async def theirs(database: Database, new_account: NewAccount) -> Tenant:
    return await make_tenant(database, await new_account())


def owner(model: type[Model]) -> Any:
    column = tenant_column(metadata.tables[model.__tablename__])
    assert column is not None
    return column


# --- a question that forgot its predicate -----------------------------------------------------------------------------
@each_table
async def test_rows_of_another_tenant_are_not_found(
    database: Database, ours: Tenant, theirs: Tenant, model: type[Model]
) -> None:
    with acting_for(ours.id):
        assert await database.fetch_all(select(owner(model))) == [ours.id]
    assert set(await database.fetch_all(select(owner(model)))) == {ours.id, theirs.id}  # as a test may look at them


@each_table
async def test_rows_of_another_tenant_are_not_deleted(
    database: Database, ours: Tenant, theirs: Tenant, model: type[Model]
) -> None:
    with acting_for(ours.id):
        assert await database.execute(delete(model)) == 1
    assert await database.fetch_all(select(owner(model))) == [theirs.id]


@pytest.mark.usefixtures("theirs")
async def test_rows_of_another_tenant_are_not_changed(database: Database, ours: Tenant) -> None:
    with acting_for(ours.id):
        assert await database.execute(update(Task).values(title="ours")) == 1
    assert sorted(await database.fetch_all(select(Task.title))) == ["ours", "x"]


@each_table
async def test_row_for_another_tenant_is_refused(
    database: Database, ours: Tenant, theirs: Tenant, model: type[Model]
) -> None:
    await database.execute(delete(model).where(owner(model) == theirs.id))
    with acting_for(ours.id), pytest.raises(DatabaseError) as caught:
        await database.execute(insert(model).values(theirs.row(model)))
    assert caught.value.sqlstate == "42501"
    assert await database.fetch_all(select(owner(model))) == [ours.id]


async def test_row_is_not_given_to_another_tenant(database: Database, ours: Tenant, theirs: Tenant) -> None:
    with acting_for(ours.id), pytest.raises(DatabaseError) as caught:
        await database.execute(update(Task).values(organization_id=theirs.id))
    assert caught.value.sqlstate == "42501"


async def test_what_is_joined_is_held_to_the_tenant_too(database: Database, ours: Tenant, theirs: Tenant) -> None:
    of_all = select(Organization.id, Member.account_id).join(Member, Member.organization_id == Organization.id)
    with acting_for(ours.id):
        assert await database.fetch_all(of_all) == [(ours.id, ours.account.id)]


async def test_whoever_acts_outside_of_an_organization_finds_what_is_their_own(
    database: Database, ours: Tenant
) -> None:
    mine = await tasks.insert_task(database, task_id=uuid7(), created_by=ours.account.id, title="mine")
    with acting_for(ours.account.id):
        assert await database.fetch_all(select(Task)) == [mine]


# --- whose call it is -------------------------------------------------------------------------------------------------
async def test_where_nobody_said_whose_call_it_is_a_walled_table_is_not_asked(database: Database) -> None:
    set_tenant(None)
    with pytest.raises(NoTenant):
        await database.fetch_all(select(Task))
    with pytest.raises(NoTenant):
        await database.execute(insert(Task).values(id=uuid7(), title="x", created_by=uuid7()))
    assert await database.fetch_all(select(Account)) == []


@pytest.mark.usefixtures("ours")
async def test_sql_that_says_no_tenant_finds_nothing(database: Database) -> None:
    """Not even where we do not see of which tables it speaks, or where a transaction has looked at all of them before."""
    forgotten = select(func.count()).select_from(sql_text("tasks"))
    assert await database.fetch_one(forgotten) == 0
    async with database.transaction() as tx:
        assert await tx.fetch_all(select(Task).execution_options(across_tenants=True))
        assert await tx.fetch_one(forgotten) == 0


async def test_statement_that_says_so_crosses_tenants_alone(database: Database, ours: Tenant, theirs: Tenant) -> None:
    everybodys = select(Task.owner_id).execution_options(across_tenants=True)
    with acting_for(ours.id):
        assert set(await database.fetch_all(everybodys)) == {ours.id, theirs.id}
        async with database.transaction() as tx:
            for _ in range(2):
                assert await tx.fetch_all(select(Task.owner_id)) == [ours.id]
                assert set(await tx.fetch_all(everybodys)) == {ours.id, theirs.id}


async def test_transaction_may_act_for_one_tenant_after_another(
    database: Database, ours: Tenant, theirs: Tenant
) -> None:
    async with database.transaction() as tx:
        for tenant in (ours, theirs, ours):
            with acting_for(tenant.id):
                assert await tx.fetch_all(select(Task.owner_id)) == [tenant.id]


# --- how the tenant travels -------------------------------------------------------------------------------------------
async def test_nothing_of_the_tenant_stays_on_the_connection(connect: Connect, ours: Tenant) -> None:
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


async def test_tables_without_a_wall_are_asked_without_a_tenant(connect: Connect, ours: Tenant) -> None:
    database = await connect(pool_size=1)
    with acting_for(ours.id):
        await database.fetch_all(select(Account))
        async with database.transaction() as tx:
            await tx.fetch_all(select(Account))
    assert await times_said(database) == 0


async def test_transaction_says_its_tenant_once(connect: Connect, ours: Tenant) -> None:
    database = await connect(pool_size=1)
    with acting_for(ours.id):
        async with database.transaction() as tx:
            for statement in (select(Account), select(Task), select(Account), select(Role), select(Task)):
                await tx.fetch_all(statement)
    assert await times_said(database) == 1


async def times_said(database: Database) -> int:
    """By the only connection of this pool."""
    plans = sql_text("coalesce(sum(generic_plans + custom_plans), 0)::int")
    said = (
        select(plans)
        .select_from(sql_text("pg_prepared_statements"))
        .where(sql_text("statement LIKE 'SELECT set_config(%'"))
    )
    return await database.fetch_one(said) or 0


async def test_statement_prepared_before_a_table_changed_is_sent_again_with_its_tenant(
    connect: Connect, ours: Tenant, dsn: str
) -> None:
    database, statement = await connect(pool_size=1), select(Task)
    with acting_for(ours.id):
        before = await database.fetch_all(statement)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("ALTER TABLE tasks ALTER COLUMN title TYPE varchar(300)")
        assert await database.fetch_all(statement) == before != []


# --- indexes ----------------------------------------------------------------------------------------------------------
def test_the_wall_keeps_indexes_in_use_and_is_asked_for_once_a_statement(dsn: str) -> None:
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


def explained(connection: "psycopg.Connection[Any]", statement: str) -> str:
    return "\n".join(line for (line,) in connection.execute(f"EXPLAIN (COSTS OFF) {statement}".encode()))


# --- the role ---------------------------------------------------------------------------------------------------------
async def test_gateway_acts_as_a_role_that_owns_nothing_and_passes_no_wall(database: Database, dsn: str) -> None:
    assert await database.fetch_one(select(func.current_user())) == GATEWAY_ROLE
    assert role_problem(dsn, GATEWAY_ROLE) is None


async def test_force_holds_the_owner_too(database: Database, dsn: str, ours: Tenant, theirs: Tenant) -> None:
    execute(dsn, psycopg.sql.SQL("ALTER TABLE tasks OWNER TO accord_gateway"))
    with acting_for(ours.id):
        assert await database.fetch_all(select(Task.owner_id)) == [ours.id]
    fault = role_problem(dsn, GATEWAY_ROLE)
    assert fault is not None
    assert fault.what == '"accord_gateway" passes the row-level security of tasks'


def test_whoever_passes_the_walls_is_told_apart(dsn: str) -> None:
    """A superuser here, as whoever logs in to the embedded PostgreSQL is."""
    fault = role_problem(dsn, None)
    assert fault is not None
    for model in WALLED:
        assert model.__tablename__ in fault.what


def test_table_whose_wall_is_down_is_told(dsn: str) -> None:
    execute(dsn, psycopg.sql.SQL("ALTER TABLE roles DISABLE ROW LEVEL SECURITY"))
    fault = role_problem(dsn, GATEWAY_ROLE)
    assert fault is not None
    assert fault.what.endswith("row-level security of roles")


def test_role_that_is_not_there_is_said_to_be_missing(dsn: str) -> None:
    fault = role_problem(dsn, "nobody_of_this_name")
    assert fault is not None
    assert "CREATE ROLE nobody_of_this_name NOLOGIN" in fault.remedy


# --- tables that are yet to come --------------------------------------------------------------------------------------
def test_every_table_with_an_organization_has_a_wall_or_a_reason() -> None:
    named = {name for name, table in metadata.tables.items() if "organization_id" in table.c}
    walled = {name for name, table in metadata.tables.items() if tenant_column(table) is not None}
    assert walled == {model.__tablename__ for model in WALLED}
    # The audit is about organizations, and belongs to whoever runs the installation.
    assert named - walled == {"audit_events"}


def test_new_table_of_organizations_without_a_policy_is_noticed(postgres: str) -> None:
    extended = MetaData(naming_convention=metadata.naming_convention)
    for table in metadata.sorted_tables:
        table.to_metadata(extended)
    Table(
        "notes",
        extended,
        Column("id", Uuid, primary_key=True),
        Column("organization_id", Uuid, ForeignKey("organizations.id"), nullable=False),
        Column("number", Integer),
    )
    found = check_drift(postgres, metadata=extended)
    assert "only in the models: row-level security of notes, forced" in found
    assert any(line.startswith("only in the models: policy notes.tenant") for line in found)


# --- what crosses -----------------------------------------------------------------------------------------------------
CROSSING = {
    "api_keys._LIST_LIVE": "a key is looked up before it is known whose it is",
    "api_keys._UPDATE_USE": "as part of that",
    "cleanup._due": "the clean-up is nobody's call",
    "invitations._GET_OPEN_LOCKED": "who is invited does not belong to the organization yet",
    "members._DELETE_OF_ACCOUNT": "with an account end all of its memberships",
    "members._GET_OWNED_ALONE": "which may leave none of them without an owner",
    "members._LOCK_ORGANIZATIONS": "and are locked before",
    "organizations._OF_MEMBER": "people see all organizations that they belong to, whichever is active",
    "sessions._GET_ACTED_IN": "a session is looked up before it is known whose it is",
    "sessions._GET_LIVE": "a session is looked up before it is known whose it is",
    "sessions._LIST_LIVE": "a session is looked up before it is known whose it is",
}


def test_statements_that_cross_tenants_are_these_and_each_has_a_reason() -> None:
    assert set(crossing()) == set(CROSSING)


def crossing() -> Iterator[str]:
    for file in Path(queries.__path__[0]).glob("*.py"):
        for statement in ast.parse(file.read_text()).body:
            if "across_tenants" in ast.unparse(statement):
                yield f"{file.stem}.{_name(statement)}"


def _name(statement: ast.stmt) -> str:
    if isinstance(statement, ast.Assign):
        return ast.unparse(statement.targets[0])
    assert isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.AnnAssign)
    return statement.name if not isinstance(statement, ast.AnnAssign) else ast.unparse(statement.target)


def test_only_queries_cross_tenants_and_nobody_says_that_a_call_is_everybodys() -> None:
    root = Path(__file__).resolve().parents[2]
    everybodys = [
        file.name
        for folder in ("packages", "services")
        for file in (root / folder).rglob("*.py")
        if ("across_tenants=" in (text := file.read_text()) and file.parent.name != "queries")
        or 'set_tenant("all")' in text
    ]
    assert everybodys == []
