"""Providers: others' word for who somebody is, by OpenID Connect (Core 1.0; RFC 9700, RFC 9207, RFC 8725)."""

from accord_auth.providers.faults import AccessTokenUnavailable, ProviderUnreachable, SignInFailed
from accord_auth.providers.identities import Identity, Proof
from accord_auth.providers.providers import Callback, Providers
from accord_auth.providers.settings import ProviderSettings

__all__ = [
    "AccessTokenUnavailable",
    "Callback",
    "Identity",
    "Proof",
    "ProviderSettings",
    "ProviderUnreachable",
    "Providers",
    "SignInFailed",
]
