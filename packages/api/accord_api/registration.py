"""The registration page: every service that is served, one line for each."""

from typing import Final

from accord_api.dependencies import Dependencies
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
from accord_rpc.contract import Registry

SERVICES: Final = (
    AccountService,
    AdminService,
    ApiKeyService,
    DeviceService,
    InvitationService,
    MemberService,
    OrganizationService,
    ProviderService,
    RoleService,
    SecondFactorService,
    ServiceAccountService,
    SessionService,
    TaskService,
    TokenService,
)


def register(dependencies: Dependencies) -> Registry:
    return Registry(service(dependencies) for service in SERVICES)
