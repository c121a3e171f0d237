"""Messages to columns and back, on a real table with a column of every kind: see the table in accord_rpc/messages.py."""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple, NotRequired, TypedDict
from uuid import UUID

import psycopg
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from accord_db.engine.database import Database
from accord_db.engine.dml import insert_row, insert_rows, update_row
from accord_db.engine.ids import uuid7
from accord_rpc.errors import RpcError
from accord_rpc.fields import column_kind, fields_of
from accord_rpc.json_values import json_reader
from accord_rpc.masks import MaskedChanges
from accord_rpc.messages import ColumnMapper, FieldReader, MessageMapper, nullable_keys
from tests.rpc.made import STRUCT, UNMAPPABLE, computed, message_field, message_with
from tests.rpc.things import GET, THIS, Thing, changes_of, new_thing, pb, to_thing

UUID_1, UUID_2 = "018f0000-0000-7000-8000-000000000001", "018f0000-0000-7000-8000-000000000002"
NOON = Timestamp(seconds=1_800_000_000, nanos=123_456_000)
JSON: dict[str, Any] = {"a": None, "b": [1, 2.5, "x", {"c": True}], "": "empty key", "ü": {}}


ANY_JSON: list[Any] = [JSON, {}, [], [None], "x", "", 0, -1, 1.5, True, False]


def struct(value: dict[str, Any]) -> Struct:
    return json_format.ParseDict(value, Struct())


def list_value(value: list[Any]) -> ListValue:
    return json_format.Parse(json.dumps(value), ListValue())


def json_value(value: Any) -> Value:
    return json_format.Parse(json.dumps(value), Value())


def a_request(**fields: Any) -> Any:
    """With the fields that must be set."""
    least = {"name": "A thing", "owner_key": UUID_1, "seen_at": NOON, "something": json_value(1)}
    return pb.CreateThingRequest(**least | fields)


class Mapped(NamedTuple):
    """A value of a field, and an SQL expression of the value in its column."""

    field: str
    value: Any
    sql: str


def json_mapped(field: str, value: object) -> Mapped:
    message = pb.CreateThingRequest.DESCRIPTOR.fields_by_name[field].message_type._concrete_class()
    return Mapped(field, json_format.Parse(json.dumps(value), message), f"$${json.dumps(value)}$$::jsonb")


MAPPED = [
    Mapped("name", "ü 𝕏 '\"; --\\", "'ü 𝕏 ''\"; --\\'"),
    Mapped("description", "", "''"),
    Mapped("description", "Text", "'Text'"),
    Mapped("active", True, "true"),
    Mapped("active", False, "false"),
    Mapped("small", -(2**31), "-2147483648"),
    Mapped("large", 2**31 - 1, "2147483647"),
    Mapped("real", 0.1, "0.1::float8"),
    Mapped("real", float("-inf"), "'-infinity'::float8"),
    Mapped("content", b"\0\xff", r"'\x00ff'::bytea"),
    Mapped("content", b"", "''::bytea"),
    Mapped("owner_key", UUID_2, f"'{UUID_2}'::uuid"),
    Mapped("parent_id", UUID_2, f"'{UUID_2}'::uuid"),
    Mapped("state", "STATE_IN_USE", "'in_use'"),
    Mapped("previous_state", "STATE_NEW", "'new'"),
    Mapped("seen_at", Timestamp(seconds=-62_135_596_800), "'0001-01-01 00:00Z'::timestamptz"),
    Mapped(
        "seen_at", Timestamp(seconds=253_402_300_799, nanos=999_999_000), "'9999-12-31 23:59:59.999999Z'::timestamptz"
    ),
    Mapped("seen_at", Timestamp(), "'1970-01-01 00:00Z'::timestamptz"),
    Mapped("ended_at", NOON, "'2027-01-15 08:00:00.123456Z'::timestamptz"),
    json_mapped("settings", JSON),
    Mapped("settings", struct({}), "'{}'::jsonb"),
    json_mapped("extra", JSON),
    Mapped("extra", struct({}), "'{}'::jsonb"),
    json_mapped("entries", [1, None, [[]], JSON]),
    Mapped("entries", list_value([]), "'[]'::jsonb"),
    *(json_mapped("anything", each) for each in ANY_JSON),
    *(json_mapped("something", each) for each in ANY_JSON),
    Mapped(
        "tags", ["a,b", '"', "\\", "", "NULL", "{ü}"], """ARRAY['a,b', '"', E'\\\\', '', 'NULL', '{ü}']::varchar[]"""
    ),
    Mapped("tags", [], "'{}'::varchar[]"),
    Mapped("member_ids", [UUID_2, UUID_1], f"ARRAY['{UUID_2}', '{UUID_1}']::uuid[]"),
    Mapped("states", ["STATE_IN_USE", "STATE_NEW"], "ARRAY['in_use', 'new']::varchar[]"),
    Mapped("flags", [True, False], "ARRAY[true, false]"),
    Mapped("smalls", [0, -1], "ARRAY[0, -1]"),
    Mapped("larges", [2**63 - 1], "ARRAY[9223372036854775807]"),
    Mapped("reals", [0.1, -0.5], "ARRAY[0.1, -0.5]::float8[]"),
    Mapped("contents", [b'"\\\0', b""], r"ARRAY['\x225c00'::bytea, ''::bytea]"),
    Mapped("city", "Oslo", "'Oslo'"),
    Mapped("room", 0, "0"),
    Mapped("begins_on", "0001-01-01", "'0001-01-01'::date"),
    Mapped("ends_on", "2024-02-29", "'2024-02-29'::date"),
    json_mapped("document", JSON),
    Mapped("holidays", ["9999-12-31", "2026-12-25"], "ARRAY['9999-12-31', '2026-12-25']::date[]"),
]


def test_every_field_that_a_column_can_hold_is_tried() -> None:
    fields = {field.name for field in pb.CreateThingRequest.DESCRIPTOR.fields}
    assert {mapped.field for mapped in MAPPED} == fields
    assert fields >= {field.name for field in fields_of(pb.Thing)} - {"id", "etag", "created_at"}


@pytest.mark.usefixtures("things_table")
async def test_values_of_create_requests_are_stored_and_read_back(database: Database, dsn: str) -> None:
    for mapped in MAPPED:
        request = a_request(**{mapped.field: mapped.value})
        row = await insert_row(database, Thing, id=uuid7(), **new_thing(request))
        assert stored(dsn, row.id, mapped), mapped
        thing = to_thing(row)
        assert field_in(thing, mapped.field) == field_in(request, mapped.field)
        assert to_thing(await database.fetch_one(GET, thing_id=row.id)) == thing


@pytest.mark.usefixtures("things_table")
async def test_values_of_update_requests_are_stored_and_read_back(database: Database, dsn: str) -> None:
    for mapped in MAPPED:
        row = await insert_row(database, Thing, id=uuid7(), **new_thing(a_request()))
        thing = pb.Thing(**{mapped.field: mapped.value})
        request = pb.UpdateThingRequest(thing=thing, update_mask=FieldMask(paths=[mapped.field]))
        changed = await update_row(database, Thing, THIS, changes_of(request), thing_id=row.id)
        assert stored(dsn, row.id, mapped), mapped
        assert field_in(to_thing(changed), mapped.field) == field_in(thing, mapped.field)


@pytest.mark.usefixtures("things_table")
async def test_values_of_a_batch_are_stored_and_read_back(database: Database, dsn: str) -> None:
    requests = [a_request(**{mapped.field: mapped.value}) for mapped in MAPPED]
    rows = await insert_rows(database, Thing, [{"id": uuid7(), **new_thing(each)} for each in requests])
    for mapped, request, row in zip(MAPPED, requests, rows, strict=True):
        assert stored(dsn, row.id, mapped), mapped
        assert field_in(to_thing(row), mapped.field) == field_in(request, mapped.field)


def stored(dsn: str, id: UUID, mapped: Mapped) -> bool:
    with psycopg.connect(dsn) as connection:
        query = f"SELECT {mapped.field} IS NOT DISTINCT FROM {mapped.sql} FROM things WHERE id = %s"
        row = connection.execute(query.encode(), [id]).fetchone()
    assert row is not None
    return bool(row[0])


def field_in(message: Message, name: str) -> tuple[Any, bool]:
    """Its value, and whether it is set."""
    value = getattr(message, name)
    return value, message.HasField(name) if message.DESCRIPTOR.fields_by_name[name].has_presence else bool(value)


# --- unset fields -----------------------------------------------------------------------------------------------------
NULLABLE = ("description", "parent_id", "previous_state", "ended_at", "extra", "anything", "city", "room", "ends_on")


@pytest.mark.usefixtures("things_table")
async def test_unset_fields_are_null_the_default_or_empty(database: Database, dsn: str) -> None:
    row = await insert_row(database, Thing, id=uuid7(), **new_thing(a_request()))
    for name in NULLABLE:
        assert stored(dsn, row.id, Mapped(name, None, "NULL")), name
        assert not to_thing(row).HasField(name), name
    empty = {
        "settings": "'{}'::jsonb",
        "entries": "'[]'::jsonb",
        "tags": "'{}'::varchar[]",
        "states": "'{}'::varchar[]",
    }
    for name, sql in {"state": "'new'", "content": "''::bytea", "small": "0", **empty}.items():
        assert stored(dsn, row.id, Mapped(name, None, sql)), name


@pytest.mark.usefixtures("things_table")
async def test_masked_fields_that_are_unset_become_null(database: Database, dsn: str) -> None:
    given = {mapped.field: mapped.value for mapped in MAPPED}
    for name in NULLABLE:
        row = await insert_row(database, Thing, id=uuid7(), **new_thing(a_request(**{name: given[name]})))
        request = pb.UpdateThingRequest(thing=pb.Thing(), update_mask=FieldMask(paths=[name]))
        await update_row(database, Thing, THIS, changes_of(request), thing_id=row.id)
        assert stored(dsn, row.id, Mapped(name, None, "NULL")), name


@pytest.mark.parametrize("name", ["name", "owner_key", "state", "seen_at", "something", "begins_on"])
def test_masked_field_without_an_empty_value_must_be_set(name: str) -> None:
    request = pb.UpdateThingRequest(thing=pb.Thing(), update_mask=FieldMask(paths=["small", name]))
    assert violation(lambda: changes_of(request)) == (f"thing.{name}", "must be set")


@pytest.mark.parametrize("name", ["owner_key", "seen_at", "something"])
def test_required_field_of_a_create_request_must_be_set(name: str) -> None:
    request = a_request()
    request.ClearField(name)
    assert violation(lambda: new_thing(request, path="requests[3].")) == (f"requests[3].{name}", "must be set")


def test_json_null_at_the_top_of_a_value_is_sql_null() -> None:
    """A column has one null, not two."""
    null = json_value(None)
    assert new_thing(a_request(anything=null))["anything"] is None
    assert violation(lambda: new_thing(a_request(something=null))) == ("something", "must be set")
    assert new_thing(a_request(something=json_value([None])))["something"] == [None]


# --- values that no column holds --------------------------------------------------------------------------------------
def violation(read: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(RpcError) as caught:
        read()
    [found] = caught.value.violations
    return found.field, found.description


NUL, NOT_FINITE = "must not contain the NUL character", "must contain only finite numbers"


@pytest.mark.parametrize(
    ("fields", "path", "problem"),
    [
        ({"name": "a\0b"}, "name", NUL),
        ({"description": "\0"}, "description", NUL),
        ({"tags": ["a", "\0"]}, "tags[1]", NUL),
        ({"settings": struct({"a": ["\0"]})}, "settings", NUL),
        ({"settings": struct({"\0": 1})}, "settings", NUL),
        ({"extra": struct({"a": {"b": {"\0": 1}}})}, "extra", NUL),
        ({"entries": list_value([["\0"]])}, "entries", NUL),
        ({"anything": json_value("\0")}, "anything", NUL),
        ({"settings": Struct(fields={"a": Value(number_value=float("nan"))})}, "settings", NOT_FINITE),
        ({"entries": ListValue(values=[Value(number_value=float("inf"))])}, "entries", NOT_FINITE),
        ({"anything": Value(number_value=float("-inf"))}, "anything", NOT_FINITE),
        ({"state": 77}, "state", "must be one of the defined values"),
        ({"states": [1, 77]}, "states[1]", "must be one of the defined values"),
        ({"states": [0]}, "states[0]", "must be set"),
        ({"member_ids": [UUID_1, ""]}, "member_ids[1]", "must be set"),
        ({"seen_at": Timestamp(seconds=2**62)}, "seen_at", "must be in the years 1 to 9999"),
        ({"ended_at": Timestamp(seconds=-(2**62))}, "ended_at", "must be in the years 1 to 9999"),
        ({"ended_at": Timestamp(seconds=-62_135_596_800, nanos=-1)}, "ended_at", "must be in the years 1 to 9999"),
    ],
)
def test_value_that_its_column_cannot_hold_is_refused_with_its_path(
    fields: dict[str, Any], path: str, problem: str
) -> None:
    assert violation(lambda: new_thing(a_request(**fields), path="requests[0].")) == (f"requests[0].{path}", problem)
    name = next(iter(fields))
    request = pb.UpdateThingRequest(thing=pb.Thing(**fields), update_mask=FieldMask(paths=[name]))
    assert violation(lambda: changes_of(request)) == (f"thing.{path}", problem)


# --- JSON -------------------------------------------------------------------------------------------------------------
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
DOCUMENTS = st.dictionaries(
    TEXTS,
    st.recursive(
        st.none() | st.booleans() | NUMBERS | TEXTS,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
        max_leaves=20,
    ),
    max_size=6,
)


def test_json_comes_back_from_postgresql_as_it_was(dsn: str) -> None:
    read, mapper = (
        json_reader(pb.Thing.DESCRIPTOR.fields_by_name["settings"]),
        MessageMapper[Any](message_with(message_field(STRUCT, name="settings"))),
    )
    with psycopg.connect(dsn) as connection:

        @given(DOCUMENTS)
        def round_trip(document: dict[str, Any]) -> None:
            row = connection.execute(b"SELECT %s::jsonb", [Jsonb(read(struct(document), "settings"))]).fetchone()
            assert row is not None
            assert json_format.MessageToDict(mapper(SimpleNamespace(settings=row[0])).settings) == document

        round_trip()


@pytest.mark.usefixtures("things_table")
async def test_numbers_keep_their_value_in_json(database: Database) -> None:
    numbers = [0, -0.0, 2**53, -(2**53), 2**53 + 2, 1e22, 1e308, 5e-324, 0.1]
    row = await insert_row(database, Thing, id=uuid7(), **new_thing(a_request(settings=struct({"n": numbers}))))
    assert list(to_thing(row).settings["n"]) == numbers


@pytest.mark.usefixtures("things_table")
async def test_whole_numbers_are_integers_in_postgresql(database: Database, dsn: str) -> None:
    row = await insert_row(database, Thing, id=uuid7(), **new_thing(a_request(settings=struct({"n": 3}))))
    assert stored(dsn, row.id, Mapped("settings->>'n'", None, "'3'"))


# --- rows of other releases -------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("things_table")
async def test_choice_that_this_release_does_not_know_is_unspecified(database: Database, dsn: str) -> None:
    row = await insert_row(database, Thing, id=uuid7(), **new_thing(a_request()))
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE things DROP CONSTRAINT ck_things_state")
        connection.execute("UPDATE things SET state = 'archived', states = '{new,archived}'")
    thing = to_thing(await database.fetch_one(GET, thing_id=row.id))
    assert thing.state == pb.STATE_UNSPECIFIED
    assert list(thing.states) == [pb.STATE_NEW, pb.STATE_UNSPECIFIED]


# --- shapes -----------------------------------------------------------------------------------------------------------
def test_shape_with_a_key_that_is_not_a_field_is_refused() -> None:
    shape: Any = TypedDict("shape", {"name": str, "nonsense": str})
    with pytest.raises(TypeError, match=r"things\.v1\.CreateThingRequest has no field nonsense"):
        ColumnMapper(pb.CreateThingRequest, shape)


def test_shape_of_changes_must_have_exactly_the_changeable_fields() -> None:
    shape: Any = TypedDict("shape", {"name": str}, total=False)
    with pytest.raises(TypeError, match=r"must have the changeable fields of things\.v1\.Thing: active, anything"):
        MaskedChanges(pb.UpdateThingRequest, shape)


def test_changes_need_a_request_with_a_resource_and_a_mask() -> None:
    shape: Any = TypedDict("shape", {}, total=False)
    with pytest.raises(TypeError, match="GetThingRequest must have a FieldMask update_mask and one other message"):
        MaskedChanges(pb.GetThingRequest, shape)


class Shape(TypedDict):
    name: str
    description: NotRequired[str | None]
    active: NotRequired[bool]
    parent_id: UUID | None


def test_keys_that_are_not_required_are_left_out_if_unset() -> None:
    read = ColumnMapper(pb.CreateThingRequest, Shape)
    assert read(pb.CreateThingRequest(name="x")) == {"name": "x", "parent_id": None}
    request = pb.CreateThingRequest(name="x", description="", active=True, parent_id=UUID_1)
    assert read(request) == {"name": "x", "description": "", "active": True, "parent_id": UUID(UUID_1)}


def test_none_is_allowed_where_the_type_of_the_key_admits_it() -> None:
    assert nullable_keys(Shape) == {"name": False, "description": True, "active": False, "parent_id": True}


# --- fields that no column holds --------------------------------------------------------------------------------------
@pytest.mark.parametrize(("declared", "kind"), UNMAPPABLE, ids=[kind for _, kind in UNMAPPABLE])
def test_field_that_no_column_holds_is_refused_by_name_and_kind(declared: FieldDescriptorProto, kind: str) -> None:
    message = message_with(declared)
    [field] = fields_of(message)
    assert column_kind(field) is None
    problem = f"no column can hold a {kind}: use "
    with pytest.raises(TypeError, match=rf"^accord\.made\.v1\.Made\.value: {problem}"):
        MessageMapper(message)
    with pytest.raises(TypeError, match=rf"^accord\.made\.v1\.Made\.value: {problem}"):
        FieldReader(field, nullable=True)


def test_computed_field_of_any_kind_is_left_to_the_handler() -> None:
    message = message_with(computed(message_field(STRUCT, repeated=True)))
    assert MessageMapper(message)(SimpleNamespace()) == message()
