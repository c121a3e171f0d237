"""Sign-in with OpenID Connect providers (Core 1.0; RFC 9700, RFC 9207, RFC 8725).

`providers` is the interface for handlers. `provider` is one of them. `metadata`, `provider_keys` and `id_tokens` verify what it
publishes and signs. `provider_identity` is the result of a sign-in, and `access_tokens` stores its tokens.
"""

from accord_auth.providers.errors import AccessTokenUnavailable, ProviderUnreachable, SignInFailed
from accord_auth.providers.provider_identity import Identity, Proof, ProviderSettings
from accord_auth.providers.providers import Callback, Providers

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
