"""Services: programs of the operator, which call with short-lived tokens (RFC 6749, RFC 8693, RFC 9068) or certificates.

`signing_keys` are the keys of the tokens, `tokens` signs and verifies them, and `finders` authenticates their callers.
"""

from accord_auth.services.authenticators import CertificateAuthenticator, ServiceTokenAuthenticator
from accord_auth.services.signing_keys import SigningKeys
from accord_auth.services.tokens import LIFETIME, ActingFor, ServiceTokens, require_client

__all__ = [
    "LIFETIME",
    "ActingFor",
    "CertificateAuthenticator",
    "ServiceTokenAuthenticator",
    "ServiceTokens",
    "SigningKeys",
    "require_client",
]
