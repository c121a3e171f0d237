"""All that a sign-in with a provider needs to be secret is made of its one token, and so is stored nowhere."""

import hashlib
import hmac
from typing import NamedTuple

from accord_auth.providers.encodings import base64url


class SignInSecrets(NamedTuple):
    """Nobody who sees one of them can tell another, nor the token."""

    state: str
    nonce: str
    code_verifier: str

    def __repr__(self) -> str:
        return "SignInSecrets(…)"


def secrets_of(token: str) -> SignInSecrets:
    return SignInSecrets(*(_derived(token, purpose) for purpose in SignInSecrets._fields))


def is_state(state: str, secrets: SignInSecrets) -> bool:
    return hmac.compare_digest(state.encode(), secrets.state.encode())


def _derived(token: str, purpose: str) -> str:
    """256 bits as 43 characters, which is what PKCE asks of a verifier (RFC 7636, 4.1)."""
    digest = hmac.digest(token.encode(), b"accord provider sign-in: " + purpose.encode(), hashlib.sha256)
    return base64url(digest)
