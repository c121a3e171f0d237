"""The dependencies of handlers. The gateway builds them once; every servicer takes them."""

from dataclasses import dataclass
from datetime import timedelta

from accord_api.outbox import Outbox
from accord_api.sign_ins import SignIns
from accord_auth.passwords import Passwords
from accord_auth.providers import Providers
from accord_auth.second_factors import SecondFactors
from accord_auth.services import ServiceTokens
from accord_auth.sessions import Sessions
from accord_db.engine.database import Database
from accord_rpc.pagination import Paginator


@dataclass(frozen=True, slots=True)
class Rules:
    """What an installation has decided in its settings."""

    verified_email_required: bool = False
    link_by_email: bool = False
    # How long a deleted organization can be restored.
    deleted_organizations_kept: timedelta = timedelta(days=30)
    # The page on which a user enters the code that a device shows.
    verification_uri: str = "http://127.0.0.1:3000/device"


@dataclass(frozen=True, slots=True)
class Dependencies:
    database: Database
    paginator: Paginator
    sessions: Sessions
    sign_ins: SignIns
    passwords: Passwords
    second_factors: SecondFactors
    providers: Providers
    service_tokens: ServiceTokens
    outbox: Outbox
    secret_key: bytes
    rules: Rules
