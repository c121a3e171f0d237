"""A feature with JSON, lists and enums on the real gateway: the mapping between messages and columns."""

from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

import accord_api.registration as registration
import accord_gateway.server.gateway as wiring
from accord.policy.v1.policy_pb2 import CREDENTIAL_API_KEY, PERMISSION_TASKS_READ, VIEW_BASIC, VIEW_FULL
from accord_db.engine.database import Database
from accord_rpc.contract import contract_services
from tests.api.conftest import Client, refusal
from tests.factories import Person
from tests.rpc.things import GET_BASIC, LISTING, ThingService, create_table, pb, stubs
from tests.rpc.things import parent as expanded_parent

SETTINGS = {"theme": "dark", "limits": [1, 2.5, None], "nested": {"on": True}}


@pytest.fixture(autouse=True)
def _served(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    create_table(dsn)
    services = [*contract_services(), pb.DESCRIPTOR.services_by_name["ThingService"]]
    monkeypatch.setattr(registration, "SERVICES", (*registration.SERVICES, ThingService))
    monkeypatch.setattr(wiring, "contract_services", lambda: services)


@pytest.fixture
def things(client: Client) -> Any:
    return stubs.ThingServiceStub(client.channel)


def new(**fields: Any) -> Any:
    required = {
        "name": "A thing",
        "owner_key": str(uuid4()),
        "seen_at": Timestamp(seconds=1),
        "something": Value(bool_value=True),
    }
    return pb.CreateThingRequest(**required | fields)


def struct(value: dict[str, Any]) -> Struct:
    return json_format.ParseDict(value, Struct())


async def create(things: Any, owner: Person, **fields: Any) -> Any:
    return (await things.CreateThing(new(**fields), metadata=owner.headers)).thing


async def update(things: Any, owner: Person, thing: Any, *paths: str) -> Any:
    request = pb.UpdateThingRequest(thing=thing, update_mask=FieldMask(paths=paths))
    return (await things.UpdateThing(request, metadata=owner.headers)).thing


async def test_json_lists_and_enums_are_created_read_updated_and_filtered(things: Any, me: Person) -> None:
    created = await create(things, me, settings=struct(SETTINGS), tags=["red", "blue"], state=pb.STATE_IN_USE)
    assert UUID(created.id).version == 7
    assert json_format.MessageToDict(created.settings) == SETTINGS
    assert (list(created.tags), created.state) == (["red", "blue"], pb.STATE_IN_USE)
    assert (await things.GetThing(pb.GetThingRequest(thing_id=created.id), metadata=me.headers)).thing == created

    other = await create(things, me)
    assert (other.state, list(other.tags)) == (pb.STATE_NEW, [])  # defaults of the table
    assert other.HasField("settings")
    assert not other.HasField("extra")

    body = pb.Thing(
        id=created.id, etag=created.etag, settings=struct({"theme": "light"}), tags=["green"], state=pb.STATE_NEW
    )
    changed = await update(things, me, body, "settings", "tags")
    assert json_format.MessageToDict(changed.settings) == {"theme": "light"}
    assert (list(changed.tags), changed.state) == (["green"], pb.STATE_IN_USE)
    changed = await update(
        things, me, pb.Thing(id=created.id, state=pb.STATE_NEW, extra=struct({})), "state", "extra", "tags"
    )
    assert (changed.state, list(changed.tags), changed.HasField("extra")) == (pb.STATE_NEW, [], True)
    stale = pb.UpdateThingRequest(thing=body, update_mask=FieldMask(paths=["tags"]))
    assert (await refusal(things.UpdateThing(stale, metadata=me.headers))).reason == "ETAG_MISMATCH"


async def listed(things: Any, me: Person, **filters: Any) -> list[str]:
    response = await things.ListThings(pb.ListThingsRequest(order_by="name", **filters), metadata=me.headers)
    return [thing.name for thing in response.things]


async def test_list_filters_by_enum_list_text_time_and_presence(things: Any, me: Person) -> None:
    await create(things, me, name="one", state=pb.STATE_IN_USE, tags=["red"], extra=struct({}))
    await create(things, me, name="two", tags=["red", "blue"], active=True, seen_at=Timestamp(seconds=100))
    assert await listed(things, me) == ["one", "two"]
    assert await listed(things, me, state=pb.STATE_IN_USE) == ["one"]
    assert await listed(things, me, states=[pb.STATE_NEW, pb.STATE_IN_USE]) == ["one", "two"]
    assert await listed(things, me, states=[pb.STATE_NEW]) == ["two"]
    assert await listed(things, me, tag="red") == ["one", "two"]
    assert await listed(things, me, tag="blue") == ["two"]
    assert await listed(things, me, tag="%") == []
    assert await listed(things, me, active=False) == ["one"]
    assert await listed(things, me, name_contains="O") == ["one", "two"]
    assert await listed(things, me, name_contains="%") == []
    assert await listed(things, me, seen_from=Timestamp(seconds=2)) == ["two"]
    assert await listed(things, me, has_extra=True) == ["one"]
    assert await listed(things, me, has_extra=True, tag="blue") == []


async def test_pages_in_every_order_contain_each_row_once(things: Any, me: Person) -> None:
    requests = [
        new(
            name=f"same {number % 2}",
            small=number % 2,
            real=number % 3 / 2,
            begins_on=f"2026-01-0{number % 3 + 1}",
            ends_on=f"2026-02-0{number}" if number in (1, 2) else None,
            ended_at=Timestamp(seconds=number) if number > 4 else None,
        )
        for number in range(7)
    ]
    await things.BatchCreateThings(pb.BatchCreateThingsRequest(requests=requests), metadata=me.headers)
    for order_by in (
        "name",
        "name desc",
        "small",
        "real desc",
        "owner_key",
        "seen_at desc",
        "begins_on",
        "created_at",
        "ended_at",
        "ends_on desc",
        "ends_on",
    ):
        whole = await things.ListThings(pb.ListThingsRequest(order_by=order_by), metadata=me.headers)
        paged, token = list[Any](), ""
        while token or not paged:
            request = pb.ListThingsRequest(order_by=order_by, page_size=2, page_token=token)
            page = await things.ListThings(request, metadata=me.headers)
            paged, token = paged + list(page.things), page.next_page_token
        assert paged == list(whole.things)
        assert len(paged) == 7


async def test_value_that_a_column_cannot_store_is_an_invalid_argument_with_its_path(things: Any, me: Person) -> None:
    nan = Struct(fields={"a": Value(number_value=float("nan"))})
    refused = await refusal(things.CreateThing(new(settings=nan), metadata=me.headers))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE")
    assert refused.violations == {"settings": "must contain only finite numbers"}
    batch = pb.BatchCreateThingsRequest(requests=[new(), new(tags=["a\0"])])
    refused = await refusal(things.BatchCreateThings(batch, metadata=me.headers))
    assert refused.violations == {"requests[1].tags[0]": "must not contain the NUL character"}
    created = await create(things, me)
    body = pb.Thing(id=created.id, extra=nan)
    update = pb.UpdateThingRequest(thing=body, update_mask=FieldMask(paths=["extra"]))
    assert list((await refusal(things.UpdateThing(update, metadata=me.headers))).violations) == ["thing.extra"]
    assert await listed(things, me) == ["A thing"]


async def test_dates_are_created_read_updated_cleared_and_filtered(things: Any, me: Person) -> None:
    created = await create(
        things, me, begins_on="2024-02-29", ends_on="9999-12-31", holidays=["2026-12-25", "2026-12-26"]
    )
    assert (created.begins_on, created.ends_on) == ("2024-02-29", "9999-12-31")
    assert list(created.holidays) == ["2026-12-25", "2026-12-26"]
    changed = await update(things, me, pb.Thing(id=created.id, begins_on="2026-03-01"), "begins_on", "ends_on")
    assert (changed.begins_on, changed.HasField("ends_on")) == ("2026-03-01", False)
    await create(things, me, name="Another")
    assert await listed(things, me, begins_from="2026-03-01") == ["A thing"]
    assert len(await listed(things, me)) == 2


@pytest.mark.parametrize(
    "text", ["2026-02-30", "2026-13-01", "20261130", "2026-W49-1", "0000-01-01", "30.11.2026", "x", " 2026-11-30"]
)
async def test_text_that_is_not_a_date_is_an_invalid_argument_with_its_path(things: Any, me: Person, text: str) -> None:
    refused = await refusal(things.CreateThing(new(ends_on=text), metadata=me.headers))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE")
    assert refused.violations == {"ends_on": "must be a date, such as 2026-11-30"}
    refused = await refusal(things.ListThings(pb.ListThingsRequest(begins_from=text), metadata=me.headers))
    assert list(refused.violations) == ["begins_from"]
    refused = await refusal(things.CreateThing(new(holidays=["2026-12-25", text]), metadata=me.headers))
    assert list(refused.violations) == ["holidays[1]"]


async def test_date_that_cannot_be_null_cannot_be_cleared(things: Any, me: Person) -> None:
    created = await create(things, me)
    request = pb.UpdateThingRequest(thing=pb.Thing(id=created.id), update_mask=FieldMask(paths=["begins_on"]))
    assert (await refusal(things.UpdateThing(request, metadata=me.headers))).violations == {
        "thing.begins_on": "must be set"
    }


# --- views ------------------------------------------------------------------------------------------------------------
async def test_lists_leave_out_what_only_the_full_view_has(things: Any, me: Person) -> None:
    created = await create(things, me, document=struct(SETTINGS))
    assert json_format.MessageToDict(created.document) == SETTINGS
    for view, has_document in ((None, False), (VIEW_BASIC, False), (VIEW_FULL, True)):
        response = await things.ListThings(pb.ListThingsRequest(view=view), metadata=me.headers)
        [listed] = response.things
        assert listed.HasField("document") is has_document
        listed.document.CopyFrom(created.document)
        assert listed == created


async def test_a_single_thing_has_all_fields_unless_the_basic_view_is_requested(things: Any, me: Person) -> None:
    created = await create(things, me, document=struct(SETTINGS))
    for view, has_document in ((None, True), (VIEW_BASIC, False), (VIEW_FULL, True)):
        request = pb.GetThingRequest(thing_id=created.id, view=view)
        thing = (await things.GetThing(request, metadata=me.headers)).thing
        assert thing.HasField("document") is has_document
        thing.document.CopyFrom(created.document)
        assert thing == created


def test_statements_of_the_basic_view_do_not_read_the_column() -> None:
    page = LISTING._build_page(frozenset(), "name", False, False, 21, False)
    for statement in (GET_BASIC, page):
        assert "things.content" in str(statement)
        assert "things.document" not in str(statement)
    assert "things.document" in str(LISTING._build_page(frozenset(), "name", False, False, 21, True))


async def test_unknown_view_is_an_invalid_argument(things: Any, me: Person) -> None:
    refused = await refusal(things.ListThings(pb.ListThingsRequest(view=9), metadata=me.headers))
    assert list(refused.violations) == ["view"]


# --- references -------------------------------------------------------------------------------------------------------
@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Those that read things, as they are run."""
    run: list[str] = []
    fetch_all, fetch_one = Database.fetch_all, Database.fetch_one

    def counting(fetch: Any) -> Any:
        async def counted(self: Database, statement: Any, *arguments: Any, **parameters: Any) -> Any:
            if "FROM things" in str(statement):
                run.append(str(statement))
            return await fetch(self, statement, *arguments, **parameters)

        return counted

    monkeypatch.setattr(Database, "fetch_all", counting(fetch_all))
    monkeypatch.setattr(Database, "fetch_one", counting(fetch_one))
    return run


async def test_expanded_references_of_a_page_take_one_query(things: Any, me: Person, statements: list[str]) -> None:
    parents = [await create(things, me, name=f"parent {number}") for number in range(3)]
    for number in range(9):
        await create(things, me, name=f"child {number}", parent_id=parents[number % 3].id)
    gone = await create(things, me, name="child of nothing", parent_id=str(uuid4()))
    statements.clear()
    request = pb.ListThingsRequest(name_contains="child", order_by="name", expand=["parent"])
    listed = (await things.ListThings(request, metadata=me.headers)).things
    assert len(statements) == 2
    assert [thing.parent.name for thing in listed[:4]] == ["parent 0", "parent 1", "parent 2", "parent 0"]
    assert not next(thing for thing in listed if thing.id == gone.id).HasField("parent")


async def test_reference_is_expanded_only_if_the_request_names_it(
    things: Any, me: Person, statements: list[str]
) -> None:
    parent = await create(things, me, name="parent")
    child = await create(things, me, parent_id=parent.id)
    expanded = pb.GetThingRequest(thing_id=child.id, expand=["parent"])
    thing = (await things.GetThing(expanded, metadata=me.headers)).thing
    assert (thing.parent.id, thing.parent.HasField("parent")) == (parent.id, False)
    statements.clear()
    thing = (await things.GetThing(pb.GetThingRequest(thing_id=child.id), metadata=me.headers)).thing
    assert not thing.HasField("parent")
    assert len(statements) == 1
    expanded = pb.GetThingRequest(thing_id=parent.id, expand=["parent"])
    assert not (await things.GetThing(expanded, metadata=me.headers)).thing.HasField("parent")
    assert len(statements) == 2  # without a reference there is no second query


async def test_reference_that_the_caller_may_not_read_stays_unset(
    things: Any, me: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = await create(things, me, name="parent")
    child = await create(things, me, parent_id=parent.id)
    monkeypatch.setattr(expanded_parent, "_permission", PERMISSION_TASKS_READ)
    expanded = pb.GetThingRequest(thing_id=child.id, expand=["parent"])
    assert not (await things.GetThing(expanded, metadata=me.headers)).thing.HasField("parent")
    monkeypatch.setattr(expanded_parent, "_personal", True)
    assert (await things.GetThing(expanded, metadata=me.headers)).thing.HasField("parent")
    monkeypatch.setattr(expanded_parent, "_credentials", frozenset({CREDENTIAL_API_KEY}))
    assert not (await things.GetThing(expanded, metadata=me.headers)).thing.HasField("parent")


async def test_unknown_reference_is_an_invalid_argument(things: Any, me: Person) -> None:
    refused = await refusal(things.ListThings(pb.ListThingsRequest(expand=["owner"]), metadata=me.headers))
    assert list(refused.violations) == ["expand[0]"]


async def test_rows_without_a_time_or_date_come_last(things: Any, me: Person) -> None:
    for name, ends_on in (("none", None), ("late", "2027-01-01"), ("early", "2026-01-01")):
        await create(things, me, name=name, ends_on=ends_on)
    for order_by, names in (("ends_on", ["early", "late", "none"]), ("ends_on desc", ["none", "late", "early"])):
        response = await things.ListThings(pb.ListThingsRequest(order_by=order_by), metadata=me.headers)
        assert [thing.name for thing in response.things] == names
