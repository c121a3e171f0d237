"""Credentials: how a call presents one, and the interface of what verifies it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import NamedTuple, Protocol, TypeAlias
from uuid import UUID

from accord.errors.v1.errors_pb2 import Reason
from accord.policy.v1.policy_pb2 import (
    CREDENTIAL_API_KEY,
    CREDENTIAL_CLIENT_CERTIFICATE,
    CREDENTIAL_SERVICE_TOKEN,
    CREDENTIAL_SESSION,
    Credential,
)
from accord_auth.tokens import API_KEY_PREFIX
from accord_rpc.call import Context
from accord_rpc.caller import Caller
from accord_rpc.errors import RpcError

_SCHEME = "bearer"
# The headers that can carry a credential. A call may have one of them, once (RFC 9110, 11.6.2; RFC 6750, 2).
_HEADERS = frozenset({"authorization", "x-api-key"})


@dataclass(frozen=True)
class Authenticated:
    """The caller that a valid credential represents at this moment."""

    caller: Caller
    # Ids of everything that can change this result: credential, accounts, organization. A revocation notice names one.
    ids: tuple[UUID, ...]
    # When the credential stops being valid unless it is used before. None: never.
    valid_until: datetime | None = None
    # How long the result may be cached. None: as long as the cache keeps entries.
    kept_until: datetime | None = None

    @cached_property
    def permitted(self) -> Caller:
        """The caller in a method whose permission was checked. Copied once per authentication, not once per call."""
        return replace(self.caller, permission_checked=True)


class Authenticator(Protocol):
    """Verifies credentials of one kind."""

    async def authenticate(self, token: str) -> Authenticated | None:
        """None if the credential is not valid, for any reason. Rejects malformed ones without a query."""

    async def recheck(self, tokens: Sequence[str]) -> Mapping[str, Authenticated]:
        """The tokens that are valid now. Ignores the cache and does not count as use of the credential."""


Authenticators: TypeAlias = Mapping[Credential.ValueType, Authenticator]
"""One for each kind of credential that this installation accepts."""


class Header(NamedTuple):
    name: str
    value: str


class Presented(NamedTuple):
    """A credential as received, not yet verified."""

    kind: Credential.ValueType
    token: str


def credential_header(headers: Iterable[tuple[str, str | bytes]]) -> Header | None:
    """The header that carries a credential, or None. Raises CREDENTIAL_AMBIGUOUS for two, even if they are equal."""
    found = [(name, value) for name, value in headers if name in _HEADERS]
    if not found:
        return None
    if len(found) > 1:
        raise RpcError(Reason.REASON_CREDENTIAL_AMBIGUOUS)
    name, value = found[0]
    return Header(name, value if isinstance(value, str) else value.decode("ascii", "replace"))


def presented(header: Header | None, context: Context) -> Presented:
    """The credential in the header, or else the client certificate of the connection. Raises CREDENTIAL_MISSING without
    either, CREDENTIAL_INVALID if the header cannot be parsed."""
    if header is None:
        return _certificate(context)
    if header.name == "x-api-key":
        return Presented(CREDENTIAL_API_KEY, header.value)
    scheme, _, token = header.value.partition(" ")
    if scheme.lower() != _SCHEME or not token:
        raise RpcError(Reason.REASON_CREDENTIAL_INVALID)
    return Presented(_kind(token), token)


def _certificate(context: Context) -> Presented:
    """The certificate's URI name; there must be exactly one. grpcio's `peer_identities` would also contain DNS names and
    the common name, which authorities issue to others and which can look like a URI."""
    names = [name for name in context.auth_context().get("peer_uri", ()) if isinstance(name, bytes)]
    if len(names) != 1:
        raise RpcError(Reason.REASON_CREDENTIAL_MISSING)
    return Presented(CREDENTIAL_CLIENT_CERTIFICATE, names[0].decode("ascii", "replace"))


def _kind(token: str) -> Credential.ValueType:
    """By its form alone; the authenticator verifies it."""
    if token.startswith(API_KEY_PREFIX):
        return CREDENTIAL_API_KEY
    return CREDENTIAL_SERVICE_TOKEN if "." in token else CREDENTIAL_SESSION
