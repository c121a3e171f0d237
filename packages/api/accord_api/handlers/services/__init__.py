"""ServiceAccountService and TokenService."""

from accord_api.handlers.services.service_accounts import ServiceAccountService
from accord_api.handlers.services.tokens import TokenService

__all__ = ["ServiceAccountService", "TokenService"]
