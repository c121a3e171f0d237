"""The registration page: one line for each feature, one for each message that stands for a row, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import Message
from grpc.aio import Server

from accord.accounts.v1 import accounts_pb2, accounts_pb2_grpc
from accord.tasks.v1 import tasks_pb2, tasks_pb2_grpc
from accord_api.handlers.accounts import AccountService
from accord_api.handlers.tasks import TaskService
from accord_api.pages import Pages
from accord_auth.passwords import Passwords
from accord_auth.sessions import Sessions
from accord_db import schema
from accord_db.database import Database
from accord_db.schema.shared import Model


@dataclass(frozen=True, slots=True)
class Parts:
    """What handlers are made of."""

    database: Database
    sessions: Sessions
    passwords: Passwords
    pages: Pages


RESOURCES: Final[Mapping[type[Message], type[Model]]] = {
    accounts_pb2.Account: schema.Account,
    accounts_pb2.Session: schema.Session,
    tasks_pb2.Task: schema.Task,
}


def register(server: Server, parts: Parts) -> None:
    accounts_pb2_grpc.add_AccountServiceServicer_to_server(
        AccountService(parts.database, parts.sessions, parts.passwords), server
    )
    tasks_pb2_grpc.add_TaskServiceServicer_to_server(TaskService(parts.database, parts.pages), server)
