"""Services: programs of the operator, which call with short-lived tokens (RFC 6749, RFC 8693, RFC 9068) or certificates.

`signing_keys` are what tokens are signed with, `tokens` what they say, `authorization_server` decides who gets one, and
`finders` tell who is behind one that comes.
"""

from accord_auth.services.authenticators import CertificateAuthenticator, ServiceTokenAuthenticator
from accord_auth.services.authorization_server import client_credentials
from accord_auth.services.signing_keys import SigningKeys
from accord_auth.services.tokens import LIFETIME, ActingFor, ServiceTokens

__all__ = [
    "LIFETIME",
    "ActingFor",
    "CertificateAuthenticator",
    "ServiceTokenAuthenticator",
    "ServiceTokens",
    "SigningKeys",
    "client_credentials",
]
