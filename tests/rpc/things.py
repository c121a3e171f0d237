"""The feature of protos/things/v1/things.proto: its table, queries and servicer, as an application would write them."""

from datetime import date, datetime
from pathlib import Path
from typing import Any, ClassVar, Final, NotRequired, TypedDict
from uuid import UUID

import psycopg
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Uuid,
    any_,
    bindparam,
    select,
)
from sqlalchemy import create_engine as create_sqlalchemy_engine
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from accord.errors.v1.errors_pb2 import Reason
from accord_api.dependencies import Dependencies
from accord_db.engine.dml import etag_matches, insert_row, insert_rows, update_row
from accord_db.engine.ids import uuid7
from accord_db.engine.keyset import Contains, Listing
from accord_db.engine.model import NAMING_CONVENTION, CreatedAt, Id, Model, Versioned, one_of, some_of
from accord_db.engine.views import without
from accord_rpc.call import Context
from accord_rpc.errors import RpcError, missing_or_stale
from accord_rpc.expansions import Expansion
from accord_rpc.masks import MaskedChanges
from accord_rpc.messages import ColumnMapper, MessageMapper, etag_of
from accord_rpc.views import wants_full
from tests.protos import generated

pb, stubs = generated(Path(__file__).parent / "protos", "things/v1/things.proto")
STATES: Final = ("new", "in_use")


class ThingBase(DeclarativeBase):
    metadata: ClassVar[MetaData] = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map = Model.type_annotation_map


class Thing(Versioned, ThingBase):
    __tablename__ = "things"

    id: Mapped[Id]
    created_at: Mapped[CreatedAt]
    name: Mapped[str] = mapped_column(String(50))
    description: Mapped[str | None] = mapped_column(String(100))
    active: Mapped[bool]
    small: Mapped[int]
    large: Mapped[int] = mapped_column(BigInteger)
    real: Mapped[float]
    content: Mapped[bytes]
    owner_key: Mapped[UUID]
    parent_id: Mapped[UUID | None]
    state: Mapped[str] = mapped_column(one_of(*STATES, name="state"), server_default="new")
    previous_state: Mapped[str | None] = mapped_column(one_of(*STATES, name="previous_state"))
    seen_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    settings: Mapped[dict[str, Any]]
    extra: Mapped[dict[str, Any] | None]
    entries: Mapped[list[Any]] = mapped_column(JSONB)
    anything: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))
    something: Mapped[Any] = mapped_column(JSONB)
    tags: Mapped[list[str]] = mapped_column(ARRAY(String(20)), server_default="{}")
    member_ids: Mapped[list[UUID]]
    states: Mapped[list[str]] = mapped_column(some_of(*STATES))
    flags: Mapped[list[bool]] = mapped_column(ARRAY(Boolean))
    smalls: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    larges: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))
    reals: Mapped[list[float]] = mapped_column(ARRAY(Float))
    contents: Mapped[list[bytes]] = mapped_column(ARRAY(LargeBinary))
    city: Mapped[str | None] = mapped_column(String(50))
    room: Mapped[int | None]
    begins_on: Mapped[date] = mapped_column(server_default="2026-01-01")
    ends_on: Mapped[date | None]
    holidays: Mapped[list[date]] = mapped_column(server_default="{}")
    document: Mapped[dict[str, Any]] = mapped_column(server_default="{}")


def create_table(dsn: str) -> None:
    engine = create_sqlalchemy_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn))
    ThingBase.metadata.create_all(engine)
    engine.dispose()


# --- queries ----------------------------------------------------------------------------------------------------------
class NewThing(TypedDict):
    name: str
    description: str | None
    active: bool
    small: int
    large: int
    real: float
    content: bytes
    owner_key: UUID
    parent_id: UUID | None
    state: NotRequired[str]
    previous_state: str | None
    seen_at: datetime
    ended_at: datetime | None
    settings: dict[str, Any]
    extra: dict[str, Any] | None
    entries: list[Any]
    anything: Any | None
    something: object
    tags: NotRequired[list[str]]
    member_ids: list[UUID]
    states: list[str]
    flags: list[bool]
    smalls: list[int]
    larges: list[int]
    reals: list[float]
    contents: list[bytes]
    city: str | None
    room: int | None
    begins_on: NotRequired[date]
    ends_on: date | None
    holidays: NotRequired[list[date]]
    document: NotRequired[dict[str, Any]]


class ThingChanges(TypedDict, total=False):
    name: str
    description: str | None
    active: bool
    small: int
    large: int
    real: float
    content: bytes
    owner_key: UUID
    parent_id: UUID | None
    state: str
    previous_state: str | None
    seen_at: datetime
    ended_at: datetime | None
    settings: dict[str, Any]
    extra: dict[str, Any] | None
    entries: list[Any]
    anything: Any | None
    something: object
    tags: list[str]
    member_ids: list[UUID]
    states: list[str]
    flags: list[bool]
    smalls: list[int]
    larges: list[int]
    reals: list[float]
    contents: list[bytes]
    city: str | None
    room: int | None
    begins_on: date
    ends_on: date | None
    holidays: list[date]
    document: dict[str, Any]


class ThingFilters(TypedDict, total=False):
    active: bool | None
    state: str
    states: list[str]
    tag: str
    name_contains: str
    seen_from: datetime | None
    has_extra: bool
    begins_from: date


THIS: Final = (Thing.id == bindparam("thing_id"),)
CURRENT: Final = (*THIS, etag_matches(Thing))
GET: Final = select(Thing).where(*THIS)
GET_BASIC: Final = without(GET, [Thing.document])
GET_MANY: Final = select(Thing).where(Thing.id == any_(bindparam("thing_ids", type_=ARRAY(Uuid))))
LISTING: Final = Listing[Thing](
    select(Thing),
    id=Thing.id,
    orders={
        name: getattr(Thing, name)
        for name in ("created_at", "name", "small", "real", "owner_key", "seen_at", "begins_on", "ended_at", "ends_on")
    },
    filters={
        "active": Thing.active == bindparam("active"),
        "state": Thing.state == bindparam("state"),
        "states": Thing.state == any_(bindparam("states", type_=some_of(*STATES))),
        "tag": bindparam("tag", type_=String) == any_(Thing.tags),
        "name_contains": Contains(Thing.name),
        "seen_from": Thing.seen_at >= bindparam("seen_from"),
        "begins_from": Thing.begins_on >= bindparam("begins_from"),
        "has_extra": Thing.extra.is_not(None),
    },
    only_full=[Thing.document],
)

# --- the servicer -----------------------------------------------------------------------------------------------------
to_thing: Final = MessageMapper[Any](pb.Thing)
new_thing: Final = ColumnMapper(pb.CreateThingRequest, NewThing)
changes_of: Final = MaskedChanges(pb.UpdateThingRequest, ThingChanges)
parent: Final = Expansion[Thing](pb.Thing, "parent")
filters_of: Final = ColumnMapper(pb.ListThingsRequest, ThingFilters)


class ThingService(stubs.ThingServiceServicer):  # type: ignore[misc, name-defined]  # generated at run time
    resources: ClassVar = {pb.Thing: Thing}

    def __init__(self, dependencies: Dependencies) -> None:
        self._db = dependencies.database
        self._paginator = dependencies.paginator

    async def ListThings(self, request: Any, context: Context) -> Any:
        page, response = self._paginator.page(request), pb.ListThingsResponse()
        rows = await LISTING.fetch(self._db, page, filters=filters_of(request), full=wants_full(request, default=False))
        response.next_page_token = page.fill(response.things, rows, to_thing.fill)
        await parent.fill(request, response.things, self._things)
        return response

    async def GetThing(self, request: Any, context: Context) -> Any:
        statement = GET if wants_full(request, default=True) else GET_BASIC
        thing = await self._db.fetch_one(statement, thing_id=UUID(request.thing_id))
        if thing is None:
            raise RpcError(Reason.REASON_TASK_NOT_FOUND)
        response = pb.GetThingResponse(thing=to_thing(thing))
        await parent.fill(request, [response.thing], self._things)
        return response

    async def _things(self, ids: list[UUID]) -> list[Thing]:
        return await self._db.fetch_all(GET_MANY, thing_ids=ids)

    async def CreateThing(self, request: Any, context: Context) -> Any:
        return pb.CreateThingResponse(
            thing=to_thing(await insert_row(self._db, Thing, id=uuid7(), **new_thing(request)))
        )

    async def BatchCreateThings(self, request: Any, context: Context) -> Any:
        requests = enumerate(request.requests)
        rows = [{"id": uuid7(), **new_thing(each, path=f"requests[{index}].")} for index, each in requests]
        return pb.BatchCreateThingsResponse(things=map(to_thing, await insert_rows(self._db, Thing, rows)))

    async def UpdateThing(self, request: Any, context: Context) -> Any:
        thing_id, changes = UUID(request.thing.id), changes_of(request)
        async with self._db.transaction() as tx:
            seen_etag = etag_of(request.thing)
            thing = await update_row(tx, Thing, CURRENT, changes, thing_id=thing_id, seen_etag=seen_etag)
            if thing is None:
                current = await tx.fetch_one(GET, thing_id=thing_id)
                raise missing_or_stale(current, Reason.REASON_TASK_NOT_FOUND)
        return pb.UpdateThingResponse(thing=to_thing(thing))
