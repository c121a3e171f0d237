"""The registration page: one line for each feature, one for each message that stands for a row, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from google.protobuf.message import Message
from grpc.aio import Server

from accord.accounts.v1 import accounts_pb2, accounts_pb2_grpc
from accord.admin.v1 import admin_pb2, admin_pb2_grpc
from accord.api_keys.v1 import api_keys_pb2, api_keys_pb2_grpc
from accord.devices.v1 import devices_pb2_grpc
from accord.invitations.v1 import invitations_pb2, invitations_pb2_grpc
from accord.members.v1 import members_pb2_grpc
from accord.organizations.v1 import organizations_pb2, organizations_pb2_grpc
from accord.providers.v1 import providers_pb2, providers_pb2_grpc
from accord.roles.v1 import roles_pb2, roles_pb2_grpc
from accord.second_factors.v1 import second_factors_pb2_grpc
from accord.services.v1 import services_pb2, services_pb2_grpc
from accord.sessions.v1 import sessions_pb2_grpc
from accord.tasks.v1 import tasks_pb2, tasks_pb2_grpc
from accord_api.handlers.accounts import AccountService
from accord_api.handlers.admin import AdminService
from accord_api.handlers.api_keys import ApiKeyService
from accord_api.handlers.devices import DeviceService
from accord_api.handlers.invitations import InvitationService
from accord_api.handlers.members import MemberService
from accord_api.handlers.organizations import OrganizationService
from accord_api.handlers.providers import ProviderService
from accord_api.handlers.roles import RoleService
from accord_api.handlers.second_factors import SecondFactorService
from accord_api.handlers.services import ServiceAccountService, TokenService
from accord_api.handlers.sessions import SessionService
from accord_api.handlers.tasks import TaskService
from accord_api.outbox import Outbox
from accord_api.sign_ins import SignIns
from accord_auth.passwords import Passwords
from accord_auth.providers import Providers
from accord_auth.second_factors import SecondFactors
from accord_auth.services import ServiceTokens
from accord_auth.sessions import Sessions
from accord_db import schema
from accord_db.engine.database import Database
from accord_db.engine.model import Model
from accord_rpc.pagination import Paginator


@dataclass(frozen=True, slots=True)
class Rules:
    """What an installation has decided."""

    verified_email_required: bool = False
    link_by_email: bool = False
    # How long an organization that is deleted can be brought back.
    deleted_organizations_kept: timedelta = timedelta(days=30)
    # Where a person enters the code that a device shows.
    verification_uri: str = "http://127.0.0.1:3000/device"


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What handlers are made of."""

    database: Database
    sessions: Sessions
    passwords: Passwords
    second_factors: SecondFactors
    providers: Providers
    service_tokens: ServiceTokens
    outbox: Outbox
    secret_key: bytes
    rules: Rules


RESOURCES: Final[Mapping[type[Message], type[Model]]] = {
    accounts_pb2.Account: schema.Account,
    accounts_pb2.Session: schema.Session,
    admin_pb2.AuditEvent: schema.AuditEvent,
    admin_pb2.ManagedAccount: schema.Account,
    api_keys_pb2.ApiKey: schema.ApiKey,
    invitations_pb2.Invitation: schema.Invitation,
    organizations_pb2.Organization: schema.Organization,
    providers_pb2.LinkedProvider: schema.LinkedProvider,
    roles_pb2.Role: schema.Role,
    services_pb2.ServiceAccount: schema.ServiceAccount,
    tasks_pb2.Task: schema.Task,
}


def register(server: Server, parts: Dependencies) -> None:
    db, sessions, passwords, outbox, rules = parts.database, parts.sessions, parts.passwords, parts.outbox, parts.rules
    second_factors, pages = parts.second_factors, Paginator(parts.secret_key)
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
    admin_pb2_grpc.add_AdminServiceServicer_to_server(AdminService(db, sessions, pages), server)
    api_keys_pb2_grpc.add_ApiKeyServiceServicer_to_server(ApiKeyService(db, sessions, pages), server)
    devices_pb2_grpc.add_DeviceServiceServicer_to_server(
        DeviceService(db, sessions, outbox, key=parts.secret_key, verification_uri=rules.verification_uri), server
    )
    invitations_pb2_grpc.add_InvitationServiceServicer_to_server(InvitationService(db, sessions, outbox, pages), server)
    members_pb2_grpc.add_MemberServiceServicer_to_server(MemberService(db, sessions, pages), server)
    organizations_pb2_grpc.add_OrganizationServiceServicer_to_server(
        OrganizationService(db, sessions, pages, deleted_kept=rules.deleted_organizations_kept), server
    )
    providers_pb2_grpc.add_ProviderServiceServicer_to_server(
        ProviderService(db, parts.providers, sign_ins, outbox, link_by_email=rules.link_by_email), server
    )
    roles_pb2_grpc.add_RoleServiceServicer_to_server(RoleService(db, sessions, pages), server)
    second_factors_pb2_grpc.add_SecondFactorServiceServicer_to_server(
        SecondFactorService(db, second_factors, outbox), server
    )
    services_pb2_grpc.add_ServiceAccountServiceServicer_to_server(ServiceAccountService(db, sessions, pages), server)
    services_pb2_grpc.add_TokenServiceServicer_to_server(TokenService(db, sessions, parts.service_tokens), server)
    sessions_pb2_grpc.add_SessionServiceServicer_to_server(
        SessionService(db, sessions, passwords, second_factors, pages), server
    )
    tasks_pb2_grpc.add_TaskServiceServicer_to_server(TaskService(db, pages), server)
