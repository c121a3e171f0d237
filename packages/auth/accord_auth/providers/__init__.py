"""Providers: others' word for who somebody is, by OpenID Connect (Core 1.0; RFC 9700, RFC 9207, RFC 8725).

To be read from the outside in: `providers` is what handlers speak to, and begins and completes sign-ins; `provider` is one
of them, `metadata`, `signing_keys` and `id_tokens` what is believed of it, `proofs` what comes of it, `access_tokens` how
that is kept, and `http` the way there.
"""

from accord_auth.providers.faults import AccessTokenUnavailable, ProviderUnreachable, SignInFailed
from accord_auth.providers.proofs import Identity, Proof
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
