"""Reads the credential of a call out of its headers."""

from collections.abc import Iterable
from typing import NamedTuple

from accord.errors.v1.errors_pb2 import Reason
from accord.policy.v1.policy_pb2 import (
    CREDENTIAL_API_KEY,
    CREDENTIAL_CLIENT_CERTIFICATE,
    CREDENTIAL_SERVICE_TOKEN,
    CREDENTIAL_SESSION,
    Credential,
)
from accord_auth.tokens import API_KEY_PREFIX
from accord_rpc.errors import RpcError
from accord_rpc.interceptor import Context

_SCHEME = "bearer"
# Every header that can carry a credential. A call may have one of them, once (RFC 9110, 11.6.2; RFC 6750, 2).
_HEADERS = frozenset({"authorization", "x-api-key"})


class Header(NamedTuple):
    name: str
    value: str


class Presented(NamedTuple):
    """A credential as it came, before anybody has looked whether it is good."""

    kind: Credential.ValueType
    token: str


def credential_header(headers: Iterable[tuple[str, str | bytes]]) -> Header | None:
    """The one header that carries a credential, None if there is none. Two are refused, even if they are equal."""
    found = [(name, value) for name, value in headers if name in _HEADERS]
    if not found:
        return None
    if len(found) > 1:
        raise RpcError(Reason.REASON_CREDENTIAL_AMBIGUOUS)
    name, value = found[0]
    return Header(name, value if isinstance(value, str) else value.decode("ascii", "replace"))


def presented(header: Header | None, context: Context) -> Presented:
    """What the header says; without one, the certificate with which the connection was opened. Refused if there is neither,
    or the header says nothing we understand."""
    if header is None:
        return _certificate(context)
    if header.name == "x-api-key":
        return Presented(CREDENTIAL_API_KEY, header.value)
    scheme, _, token = header.value.partition(" ")
    if scheme.lower() != _SCHEME or not token:
        raise RpcError(Reason.REASON_CREDENTIAL_INVALID)
    return Presented(_kind(token), token)


def _certificate(context: Context) -> Presented:
    """Its one URI name. What grpcio calls the peer's identities are names of any kind, and the common name where there are
    none: a DNS name that looks like a URI, which authorities give to others, would be among them."""
    names = list((context.auth_context() or {}).get("peer_uri", ()))
    if len(names) != 1:
        raise RpcError(Reason.REASON_CREDENTIAL_MISSING)
    return Presented(CREDENTIAL_CLIENT_CERTIFICATE, names[0].decode("ascii", "replace"))


def _kind(token: str) -> Credential.ValueType:
    """By how it looks, which proves nothing."""
    if token.startswith(API_KEY_PREFIX):
        return CREDENTIAL_API_KEY
    return CREDENTIAL_SERVICE_TOKEN if "." in token else CREDENTIAL_SESSION
