"""The registration page: one line for each feature, one for each message that stands for a row, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import Message
from grpc.aio import Server

from accord.accounts.v1 import accounts_pb2, accounts_pb2_grpc
from accord.devices.v1 import devices_pb2_grpc
from accord.providers.v1 import providers_pb2, providers_pb2_grpc
from accord.second_factors.v1 import second_factors_pb2_grpc
from accord.sessions.v1 import sessions_pb2_grpc
from accord.tasks.v1 import tasks_pb2, tasks_pb2_grpc
from accord_api.handlers.accounts import AccountService
from accord_api.handlers.devices import DeviceService
from accord_api.handlers.providers import ProviderService
from accord_api.handlers.second_factors import SecondFactorService
from accord_api.handlers.sessions import SessionService
from accord_api.handlers.tasks import TaskService
from accord_api.outbox import Outbox
from accord_api.pages import Pages
from accord_api.sign_ins import SignIns
from accord_auth.passwords import Passwords
from accord_auth.providers import Providers
from accord_auth.second_factors import SecondFactors
from accord_auth.sessions import Sessions
from accord_db import schema
from accord_db.database import Database
from accord_db.schema.shared import Model


@dataclass(frozen=True, slots=True)
class Rules:
    """What an installation has decided."""

    verified_email_required: bool = False
    link_by_email: bool = False
    # Where a person enters the code that a device shows.
    verification_uri: str = "http://127.0.0.1:3000/device"


@dataclass(frozen=True, slots=True)
class Parts:
    """What handlers are made of."""

    database: Database
    sessions: Sessions
    passwords: Passwords
    second_factors: SecondFactors
    providers: Providers
    outbox: Outbox
    secret_key: bytes
    rules: Rules


RESOURCES: Final[Mapping[type[Message], type[Model]]] = {
    accounts_pb2.Account: schema.Account,
    accounts_pb2.Session: schema.Session,
    providers_pb2.LinkedProvider: schema.LinkedProvider,
    tasks_pb2.Task: schema.Task,
}


def register(server: Server, parts: Parts) -> None:
    db, sessions, passwords, outbox, rules = parts.database, parts.sessions, parts.passwords, parts.outbox, parts.rules
    second_factors, pages = parts.second_factors, Pages(parts.secret_key)
    sign_ins = SignIns(sessions, second_factors)
    accounts_pb2_grpc.add_AccountServiceServicer_to_server(
        AccountService(
            db,
            sessions,
            passwords,
            second_factors,
            sign_ins,
            outbox,
            verified_email_required=rules.verified_email_required,
        ),
        server,
    )
    devices_pb2_grpc.add_DeviceServiceServicer_to_server(
        DeviceService(db, sessions, outbox, key=parts.secret_key, verification_uri=rules.verification_uri), server
    )
    providers_pb2_grpc.add_ProviderServiceServicer_to_server(
        ProviderService(db, parts.providers, sign_ins, outbox, link_by_email=rules.link_by_email), server
    )
    second_factors_pb2_grpc.add_SecondFactorServiceServicer_to_server(
        SecondFactorService(db, second_factors, outbox), server
    )
    sessions_pb2_grpc.add_SessionServiceServicer_to_server(
        SessionService(db, sessions, passwords, second_factors, pages), server
    )
    tasks_pb2_grpc.add_TaskServiceServicer_to_server(TaskService(db, pages), server)
