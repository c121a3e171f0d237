"""Whatever is sent to whatever method, the answer is one that the contract documents, and nothing is lost.

The methods, their messages and their answers are read out of the contract: a new one is attacked without a line here.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import accord_gateway.server as wiring
import grpc
import psycopg
import pytest
import structlog
from accord.errors.v1 import errors_pb2
from accord.errors.v1.errors_pb2 import Reason
from accord.tasks.v1.tasks_pb2 import CreateTaskRequest, GetTaskRequest, ListTasksRequest
from accord_api.contract import contract_services
from accord_api.errors import reason_name
from accord_api.router import RESOURCES
from accord_auth.passwords import Passwords
from accord_auth.policy import Method, read_methods
from accord_auth.tokens import new_session_token, token_hash
from accord_db.database import Database
from accord_db.ids import uuid7
from accord_db.queries import accounts, sessions, tasks
from accord_db.schema import metadata
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter
from prometheus_client import REGISTRY
from protovalidate import Validator
from psycopg import sql

from tests.api.conftest import Client, read_refusal
from tests.api.hostile_messages import heavy_messages, hostile_messages
from tests.factories import Person, signed_in_person

METHODS, _ = read_methods(contract_services())

AT_A_TIME = 8
PATIENCE = 5.0  # seconds for any one call
PASSWORD = "a passphrase that is in no message of a log"
SECRET = "what nobody but its owner may ever see"

# What a message alone can bring about. The other codes say something of the caller, the moment or the server.
_CODES_OF_MESSAGES = {
    code.value[0]
    for code in (
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
    )
}


def documented(method: Method) -> set[str]:
    """The reasons with which the method may answer a message, whatever it is."""
    answers = {value.number: value.GetOptions().Extensions[errors_pb2.answer] for value in Reason.DESCRIPTOR.values}
    caused = {number for number, answer in answers.items() if answer.pipeline and answer.code in _CODES_OF_MESSAGES}
    if not method.idempotent:
        caused.discard(Reason.REASON_REQUEST_ID_REUSED)
    return {reason_name(reason) for reason in caused | method.policy.errors}


class Unlimited(FixedWindowRateLimiter):
    """Counts nothing: an attack from one address is a thousand times what its limits allow."""

    def __init__(self) -> None:
        super().__init__(MemoryStorage())

    async def hit(self, *_: object, **__: object) -> bool:
        return True


@pytest.fixture(autouse=True)
def cheap_and_unlimited(monkeypatch: pytest.MonkeyPatch) -> Passwords:
    """Takes from the gateway the two things that slow an attacker down. Both have tests of their own."""
    cheap = partial(Passwords, time_cost=1, memory_kib=8)
    monkeypatch.setattr(wiring, "Passwords", cheap)
    monkeypatch.setattr(wiring, "rate_limiter", lambda _: Unlimited())
    return cheap()


@dataclass
class Scene:
    """Somebody's account and another's, with rows in them, and what of it the attacker has been told."""

    client: Client
    me: Person
    other: Person
    known: list[str]
    kept: list[UUID] = field(default_factory=list)  # rows of mine that nobody was told of

    async def headers(self) -> tuple[tuple[str, str], ...]:
        """A session for one call: some methods end the one that calls them."""
        token = new_session_token()
        await sessions.insert_session(
            self.client.database,
            session_id=uuid7(),
            account_id=self.me.account_id,
            token_hash=token_hash(token),
            lifetime=SESSION,
        )
        return (("authorization", f"Bearer {token}"),)
