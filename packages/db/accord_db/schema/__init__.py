"""The tables. Every module of this package is imported, so that `metadata` is complete; the imports by name are exports."""

from importlib import import_module
from pkgutil import walk_packages

from accord_db.engine.model import Model
from accord_db.schema.account_tokens import AccountToken, TokenPurpose
from accord_db.schema.accounts import Account
from accord_db.schema.api_keys import ApiKey
from accord_db.schema.audit import AuditEvent
from accord_db.schema.devices import DeviceSignIn
from accord_db.schema.idempotency import IdempotencyKey
from accord_db.schema.invitations import Invitation
from accord_db.schema.organizations import Member, MemberRole, Organization
from accord_db.schema.outbox import OutboxMessage
from accord_db.schema.providers import LinkedProvider, ProviderSignIn
from accord_db.schema.rate_limits import RateLimit
from accord_db.schema.roles import Role
from accord_db.schema.second_factors import RecoveryCode, SecondFactor
from accord_db.schema.services import ServiceAccount, SigningKey
from accord_db.schema.sessions import Session
from accord_db.schema.tasks import Task

for _module in walk_packages(__path__, f"{__name__}."):
    import_module(_module.name)

metadata = Model.metadata

__all__ = [
    "Account",
    "AccountToken",
    "ApiKey",
    "AuditEvent",
    "DeviceSignIn",
    "IdempotencyKey",
    "Invitation",
    "LinkedProvider",
    "Member",
    "MemberRole",
    "Organization",
    "OutboxMessage",
    "ProviderSignIn",
    "RateLimit",
    "RecoveryCode",
    "Role",
    "SecondFactor",
    "ServiceAccount",
    "Session",
    "SigningKey",
    "Task",
    "TokenPurpose",
    "metadata",
]
