"""Service accounts and their tokens for tests."""

from dataclasses import dataclass
from uuid import UUID, uuid4

import grpc

from accord.services.v1.services_pb2 import (
    ExchangeTokenRequest,
    IssueTokenRequest,
)
from accord.services.v1.services_pb2_grpc import TokenServiceStub
from accord_auth.tokens import CLIENT_PREFIX, new_token, token_hash
from accord_db.engine.database import Executor
from accord_db.engine.ids import uuid7
from accord_db.queries import services
from tests.conftest import change
from tests.factories import Headers, Person, bearer

AUDIENCE = "accord"  # the audience of the gateway
OTHER_AUDIENCE = "billing"


@dataclass(frozen=True)
class Service:
    """A service account, and its secret."""

    id: UUID
    name: str
    secret: str
    etag: UUID


async def new_service(db: Executor, *audiences: str, name: str | None = None) -> Service:
    """Inserts a service account. By default it has the audiences of the gateway and of one other service."""
    secret = new_token(CLIENT_PREFIX)
    account = await services.insert_service_account(
        db,
        service_account_id=uuid7(),
        name=name or f"service-{uuid4().hex}",
        audiences=list(audiences or (AUDIENCE, OTHER_AUDIENCE)),
        secret_hash=token_hash(secret),
    )
    return Service(account.id, account.name, secret, account.etag)


async def token_of(channel: grpc.aio.Channel, service: Service, audience: str = AUDIENCE) -> str:
    """A token with which the service acts for itself."""
    request = IssueTokenRequest(client_id=str(service.id), client_secret=service.secret, audience=audience)
    return (await TokenServiceStub(channel).IssueToken(request)).access_token


async def token_for(channel: grpc.aio.Channel, service: Service, person: Person, audience: str = AUDIENCE) -> str:
    """A token with which the service acts for the person."""
    return await exchanged(channel, bearer(await token_of(channel, service)), person.token, audience)


async def exchanged(channel: grpc.aio.Channel, headers: Headers, subject_token: str, audience: str = AUDIENCE) -> str:
    request = ExchangeTokenRequest(subject_token=subject_token, audience=audience)
    return (await TokenServiceStub(channel).ExchangeToken(request, metadata=headers)).access_token


def make_administrator(dsn: str, person: Person) -> None:
    change(dsn, "UPDATE accounts SET role = 'administrator' WHERE id = %s", person.account_id)
