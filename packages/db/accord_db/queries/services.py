"""Queries of service accounts. They belong to the operator, so no owner is part of a query."""

from datetime import timedelta
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import (
    Text,
    bindparam,
    case,
    cast,
    func,
    null,
    select,
    update,
)
from sqlalchemy.orm import aliased

from accord_db.engine.database import Executor
from accord_db.engine.dml import insert_row
from accord_db.engine.expressions import interval
from accord_db.engine.keyset import Listing, Page
from accord_db.queries.sessions import REVOKED_CHANNEL
from accord_db.schema import ServiceAccount


class Client(NamedTuple):
    """A service account that is not disabled, with the hashes of its valid secrets: two during the overlap of a rotation."""

    id: UUID
    name: str
    audiences: list[str]
    secret_hash: bytes
    previous_secret_hash: bytes | None


_THIS = ServiceAccount.id == bindparam("service_account_id")


async def insert_service_account(
    db: Executor,
    *,
    service_account_id: UUID,
    name: str,
    audiences: list[str],
    secret_hash: bytes,
    created_by: UUID | None = None,
) -> ServiceAccount:
    """Raises AlreadyExists if another service account has the name."""
    return await insert_row(
        db,
        ServiceAccount,
        id=service_account_id,
        name=name,
        audiences=audiences,
        secret_hash=secret_hash,
        created_by=created_by,
    )


_GET = select(ServiceAccount).where(_THIS)


async def get_service_account(db: Executor, *, service_account_id: UUID) -> ServiceAccount | None:
    """Also a disabled one."""
    return await db.fetch_one(_GET, service_account_id=service_account_id)


_LISTING: Final = Listing[ServiceAccount](
    select(ServiceAccount), id=ServiceAccount.id, orders={"created_at": ServiceAccount.created_at}
)


async def list_service_accounts(db: Executor, *, page: Page) -> list[ServiceAccount]:
    """Also disabled ones."""
    return await _LISTING.fetch(db, page)


_CLIENT = select(
    ServiceAccount.id,
    ServiceAccount.name,
    ServiceAccount.audiences,
    ServiceAccount.secret_hash,
    case((ServiceAccount.previous_expires_at > func.now(), ServiceAccount.previous_secret_hash)).label(
        "previous_secret_hash"
    ),
).where(ServiceAccount.disabled_at.is_(None))
_GET_CLIENT = _CLIENT.where(_THIS)
_GET_CLIENT_BY_NAME = _CLIENT.where(ServiceAccount.name == bindparam("name"))


async def get_client(db: Executor, *, service_account_id: UUID) -> Client | None:
    """None if it does not exist or is disabled."""
    row = await db.fetch_one(_GET_CLIENT, service_account_id=service_account_id)
    return Client._make(row) if row is not None else None


async def get_client_by_name(db: Executor, *, name: str) -> Client | None:
    """None if it does not exist or is disabled."""
    row = await db.fetch_one(_GET_CLIENT_BY_NAME, name=name)
    return Client._make(row) if row is not None else None


_no_overlap = interval("overlap") <= timedelta(0)
_UPDATE_SECRET = (
    update(ServiceAccount)
    .where(_THIS, ServiceAccount.etag == bindparam("seen_etag"))
    .values(
        secret_hash=bindparam("new_secret_hash"),
        previous_secret_hash=case((_no_overlap, null()), else_=ServiceAccount.secret_hash),
        previous_expires_at=case((_no_overlap, null()), else_=func.now() + interval("overlap")),
    )
    .returning(ServiceAccount)
)


async def update_secret(
    db: Executor, *, service_account_id: UUID, etag: UUID, secret_hash: bytes, overlap: timedelta
) -> ServiceAccount | None:
    """The secret that it replaces stays valid for the overlap; an older one does not. None if the service account does not
    exist or has another etag."""
    return await db.fetch_one(
        _UPDATE_SECRET,
        service_account_id=service_account_id,
        seen_etag=etag,
        new_secret_hash=secret_hash,
        overlap=overlap,
    )


_disabled = aliased(
    ServiceAccount,
    update(ServiceAccount)
    .where(_THIS, ServiceAccount.disabled_at.is_(None))
    .values(disabled_at=func.now())
    .returning(ServiceAccount)
    .cte(),
    name="disabled",
)
_DISABLE = select(_disabled, func.pg_notify(REVOKED_CHANNEL, cast(_disabled.id, Text)).label("notice"))
_ENABLE = (
    update(ServiceAccount)
    .where(_THIS, ServiceAccount.disabled_at.is_not(None))
    .values(disabled_at=null())
    .returning(ServiceAccount)
)


async def disable_service_account(db: Executor, *, service_account_id: UUID) -> ServiceAccount | None:
    """Notifies every process at commit. None if it does not exist or was already disabled."""
    row = await db.fetch_one(_DISABLE, service_account_id=service_account_id)
    return row[0] if row is not None else None


async def enable_service_account(db: Executor, *, service_account_id: UUID) -> ServiceAccount | None:
    """None if it does not exist or is not disabled."""
    return await db.fetch_one(_ENABLE, service_account_id=service_account_id)
