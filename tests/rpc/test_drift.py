"""The drift gate: what it refuses when the gateway starts, by the names of the field and the column."""

from typing import Any, cast

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from protovalidate import Validator
from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    DateTime,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    String,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

import accord_api.registration as registration
import accord_gateway.server.gateway as wiring
from accord.policy.v1.policy_pb2 import MethodPolicy
from accord_db.engine.database import Database
from accord_db.engine.listen import Listener
from accord_db.engine.model import one_of, some_of
from accord_gateway.errors import StartupError
from accord_gateway.server.gateway import Runtime, build_server
from accord_gateway.settings import Settings
from accord_rpc.contract import ContractMismatch, Registry, check, contract_services
from accord_rpc.drift import drift, request_drift
from accord_rpc.policy import Method, Policy
from tests.rpc.made import (
    LIST_VALUE,
    STATUS,
    STRUCT,
    TIMESTAMP,
    UNMAPPABLE,
    VALUE,
    computed,
    field,
    made,
    message_field,
    message_with,
    text,
    uuid,
)
from tests.rpc.things import Thing, ThingService, pb

SQL_NULL = JSONB(none_as_null=True)


def table(**columns: Any) -> Any:
    """The table `made` with these columns besides its id."""
    base = type("Base", (DeclarativeBase,), {})
    return type("Made", (base,), {"__tablename__": "made", "id": mapped_column(Uuid, primary_key=True), **columns})


def problems(declared: Field, type_: Any, *, nullable: bool = False) -> list[str]:
    found = drift(message_with(declared), table(**{declared.name: mapped_column(type_, nullable=nullable)}))
    return [problem.removeprefix("accord.made.v1.Made.value and made.value: ") for problem in found]


# --- resources --------------------------------------------------------------------------------------------------------
MATCHES: list[tuple[Field, Any]] = [
    (text(5), String(5)),
    (text(), Text()),
    (uuid(), Uuid()),
    (field(Field.TYPE_ENUM, STATUS), one_of("paused", "active", name="value")),
    (field(Field.TYPE_BOOL), Boolean()),
    (field(Field.TYPE_INT32), Integer()),
    (field(Field.TYPE_SINT32), Integer()),
    (field(Field.TYPE_SFIXED32), Integer()),
    (field(Field.TYPE_INT64), BigInteger()),
    (field(Field.TYPE_SINT64), BigInteger()),
    (field(Field.TYPE_SFIXED64), BigInteger()),
    (field(Field.TYPE_DOUBLE), Float()),
    (field(Field.TYPE_BYTES), LargeBinary()),
    (message_field(TIMESTAMP), DateTime(timezone=True)),
    *((message_field(json), JSONB()) for json in (STRUCT, LIST_VALUE, VALUE)),
    (text(5, repeated=True), ARRAY(String(5))),
    (text(repeated=True), ARRAY(Text)),
    (uuid(repeated=True), ARRAY(Uuid)),
    (field(Field.TYPE_ENUM, STATUS, repeated=True), some_of("active", "paused")),
    (field(Field.TYPE_BOOL, repeated=True), ARRAY(Boolean)),
    (field(Field.TYPE_INT64, repeated=True), ARRAY(BigInteger, dimensions=1)),
]


def test_field_matches_a_column_of_its_own_type_and_of_no_other() -> None:
    for place, (declared, own) in enumerate(MATCHES):
        assert problems(declared, own) == [], declared
        for other_place, (_, other) in enumerate(MATCHES):
            if str(other) + repr(other) != str(own) + repr(own):
                assert problems(declared, other) != [], (place, other_place)


@pytest.mark.parametrize(("declared", "kind"), UNMAPPABLE, ids=[kind for _, kind in UNMAPPABLE])
def test_field_that_no_column_holds_is_refused_whatever_the_column(declared: Field, kind: str) -> None:
    types = (JSONB(), ARRAY(Text), ARRAY(JSONB), Float(), BigInteger(), Interval(), Text(), DateTime(timezone=True))
    for type_ in types:
        [problem] = problems(declared, type_)
        assert problem.startswith(f"no column can hold a {kind}: use ")


@pytest.mark.parametrize(
    ("declared", "type_", "problem"),
    [
        (text(repeated=True), Text(), "a repeated field needs an array of text, and the column is text"),
        (text(repeated=True), JSONB(), "a repeated field needs an array of text, and the column is jsonb"),
        (text(repeated=True), ARRAY(Text, dimensions=2), "the column is of a type that no field can have"),
        (text(5, repeated=True), ARRAY(String(6)), "max_len is 5, and the column's length 6"),
        (text(repeated=True), ARRAY(String(6)), "max_len is None, and the column's length 6"),
        (uuid(repeated=True), ARRAY(Text), "the field needs uuid, and the column is text"),
        (field(Field.TYPE_ENUM, STATUS, repeated=True), some_of("active"), "and the column allows ['active']"),
        (field(Field.TYPE_ENUM, STATUS, repeated=True), ARRAY(Text), "needs text with a CHECK, and the column is text"),
        (field(Field.TYPE_ENUM, STATUS), Enum("active", native_enum=False), "and the column allows ['active']"),
        (message_field(STRUCT), Text(), "the field needs jsonb, and the column is text"),
        (message_field(STRUCT), JSON(), "the field needs jsonb, and the column is of a type that no field can have"),
        (message_field(STRUCT), ARRAY(JSONB), "the field needs jsonb, and the column is an array"),
        (field(Field.TYPE_INT64), Integer(), "the field needs bigint, and the column is integer"),
        (field(Field.TYPE_INT32), BigInteger(), "the field needs integer, and the column is bigint"),
        (field(Field.TYPE_DOUBLE), Numeric(), "and the column is of a type that no field can have"),
    ],
)
def test_column_of_another_type_is_named_with_the_difference(declared: Field, type_: Any, problem: str) -> None:
    [found] = problems(declared, type_)
    assert problem in found


def test_optional_fields_and_members_of_a_oneof_need_a_column_that_can_be_null_and_no_other_field_does() -> None:
    needs = "an optional field needs a column that can be NULL, and only an optional one"
    in_oneof = text(5)
    in_oneof.oneof_index = 0
    for declared, type_ in ((text(5, optional=True), String(5)), (in_oneof, String(5)), (uuid(optional=True), Uuid())):
        assert problems(declared, type_, nullable=True) == []
        assert problems(declared, type_) == [needs]
    for declared, type_ in MATCHES:
        if not isinstance(type_, JSONB):
            assert problems(declared, type_, nullable=True) == [needs]


def test_json_column_that_can_be_null_must_not_hold_json_null_for_it() -> None:
    optional = message_field(STRUCT, optional=True)
    assert problems(optional, SQL_NULL, nullable=True) == []
    assert problems(optional, JSONB(), nullable=True) == [
        "the column would store JSON null for an unset field: declare it JSONB(none_as_null=True)"
    ]


def test_computed_field_needs_no_column() -> None:
    assert list(drift(message_with(computed(message_field(STRUCT, repeated=True))), table())) == []


# --- Create and Update requests ---------------------------------------------------------------------------------------
def in_request(name: str, *fields: Field, nested: bool = False, **columns: Any) -> list[str]:
    """The problems of a method with this name. Its request has the fields, `nested` in an element of a list, and it returns a
    resource whose table has the columns."""
    inner = [message_field(".accord.made.v1.Inner", name="requests", repeated=True)]
    returned = [message_field(".accord.made.v1.Thing", name="thing")]
    messages = made(Thing=[], Response=returned, Request=inner if nested else list(fields), Inner=list(fields))
    policy = Policy.of(MethodPolicy())
    method = Method("made.v1.Made", name, messages["Request"], messages["Response"], policy, False, False, False, None)
    found = request_drift(method, {messages["Thing"]: table(**columns)})
    return [problem.partition(": ")[2] for problem in found]


def column(type_: Any, **options: Any) -> Any:
    return mapped_column(type_, **{"nullable": False} | options)


def test_request_field_may_hold_less_than_its_column_and_not_more() -> None:
    for name in ("CreateThing", "UpdateThing"):
        for max_len in (1, 255, 256):
            assert in_request(name, text(max_len), value=column(String(256))) == []
        for declared, shown in ((text(300), "300"), (text(), "None")):
            expected = [f"max_len is {shown}, and the column's length 256"]
            assert in_request(name, declared, value=column(String(256))) == expected


@pytest.mark.parametrize(
    ("declared", "type_"),
    [
        (text(), Text()),
        (field(Field.TYPE_INT32), BigInteger()),
        (field(Field.TYPE_ENUM, STATUS), Text()),
        (field(Field.TYPE_ENUM, STATUS), one_of("active", "paused", "ended", name="value")),
        (field(Field.TYPE_ENUM, STATUS, repeated=True), some_of("active", "paused", "ended")),
        (text(5, repeated=True), ARRAY(String(9))),
    ],
)
def test_request_field_fits_a_wider_column(declared: Field, type_: Any) -> None:
    assert in_request("CreateThing", declared, value=column(type_)) == []


@pytest.mark.parametrize(
    ("declared", "type_", "problem"),
    [
        (field(Field.TYPE_INT64), Integer(), "the field needs bigint, and the column is integer"),
        (field(Field.TYPE_ENUM, STATUS), one_of("active", name="value"), "and the column allows ['active']"),
        (field(Field.TYPE_ENUM, STATUS, repeated=True), some_of("active"), "and the column allows ['active']"),
        (text(9), Uuid(), "the field needs text, and the column is uuid"),
        (uuid(), Text(), "the field needs uuid, and the column is text"),
        (text(9, repeated=True), ARRAY(String(5)), "max_len is 9, and the column's length 5"),
        (text(9, repeated=True), JSONB(), "a repeated field needs an array of text, and the column is jsonb"),
        (message_field(STRUCT), Text(), "the field needs jsonb, and the column is text"),
        (message_field(".google.protobuf.Duration"), Interval(), "no column can hold a google.protobuf.Duration"),
        (message_field(STRUCT, repeated=True), JSONB(), "no column can hold a repeated google.protobuf.Struct"),
    ],
)
def test_request_field_that_its_column_cannot_hold_is_refused(declared: Field, type_: Any, problem: str) -> None:
    for name in ("CreateThing", "UpdateThing"):
        [found] = in_request(name, declared, value=column(type_))
        assert problem in found


def test_fields_of_the_requests_in_a_batch_are_compared_too() -> None:
    for name in ("BatchCreateThings", "BatchUpdateThings"):
        found = in_request(name, text(300), nested=True, value=column(String(256)))
        assert found == ["max_len is 300, and the column's length 256"]


def test_field_that_a_create_request_can_leave_unset_needs_a_default_or_null() -> None:
    optional, problem = text(9, optional=True), "the request can leave it unset, but the column cannot be NULL"
    [found] = in_request("CreateThing", optional, value=column(String(9)))
    assert problem in found
    assert in_request("CreateThing", optional, value=column(String(9), nullable=True)) == []
    assert in_request("CreateThing", optional, value=column(String(9), server_default="")) == []
    assert in_request("UpdateThing", optional, value=column(String(9))) == []


def test_requests_that_write_nothing_are_not_compared() -> None:
    for name in ("GetThing", "ListThings", "DeleteThing"):
        assert in_request(name, text(300), value=column(String(256))) == []


# --- at start ---------------------------------------------------------------------------------------------------------
def things_with(**columns: Any) -> type[ThingService]:
    """The servicer over a table with these columns in place of its own."""
    others = {
        name: mapped_column(
            own.type, nullable=own.nullable, primary_key=own.primary_key, server_default=own.server_default
        )
        for name, own in Thing.__table__.c.items()
    }
    base = type("Base", (DeclarativeBase,), {})
    model = type("Other", (base,), {"__tablename__": "things", **others, **columns})
    return type("ThingService", (ThingService,), {"resources": {pb.Thing: model}})


def with_things() -> list[Any]:
    return [*contract_services(), pb.DESCRIPTOR.services_by_name["ThingService"]]


def refused(servicer: type[ThingService]) -> str:
    nothing = cast(Any, type("Nothing", (), {"database": None, "paginator": None}))
    with pytest.raises(ContractMismatch) as caught:
        check(with_things(), Registry([servicer(nothing)]), Validator())
    return str(caught.value)


def test_resource_and_requests_that_do_not_fit_the_table_are_refused_together() -> None:
    message = refused(things_with(name=column(String(40)), settings=column(Text), tags=column(JSONB)))
    for name in ("things.v1.Thing", "things.v1.CreateThingRequest"):
        assert f"{name}.name and things.name: max_len is 50, and the column's length 40" in message
        assert f"{name}.settings and things.settings: the field needs jsonb, and the column is text" in message
        assert (
            f"{name}.tags and things.tags: a repeated field needs an array of text, and the column is jsonb" in message
        )


async def test_gateway_does_not_start_when_a_create_request_allows_more_than_the_column(
    database: Database, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    servicer = things_with(description=column(String(99), nullable=True))
    monkeypatch.setattr(registration, "SERVICES", (*registration.SERVICES, servicer))
    monkeypatch.setattr(wiring, "contract_services", with_things)
    with pytest.raises(
        StartupError, match=r"things\.v1\.CreateThingRequest\.description and things\.description: max_len"
    ):
        build_server(Runtime(Settings(port=0, metrics_port=0), b"key", database, Listener(dsn)))
