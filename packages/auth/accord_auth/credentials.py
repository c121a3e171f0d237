"""Reads the credential of a call out of its headers."""

from collections.abc import Iterable
from typing import NamedTuple

from accord.errors.v1.errors_pb2 import Reason
from accord.policy.v1.policy_pb2 import CREDENTIAL_API_KEY, CREDENTIAL_SESSION, Credential
from accord_auth.refused import Refused

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
        raise Refused(Reason.REASON_CREDENTIAL_AMBIGUOUS)
    name, value = found[0]
    return Header(name, value if isinstance(value, str) else value.decode("ascii", "replace"))


def presented(header: Header | None) -> Presented:
    """What the header says; refused if it is missing or says nothing we understand."""
    if header is None:
        raise Refused(Reason.REASON_CREDENTIAL_MISSING)
    if header.name == "x-api-key":
        return Presented(CREDENTIAL_API_KEY, header.value)
    scheme, _, token = header.value.partition(" ")
    if scheme.lower() != _SCHEME or not token:
        raise Refused(Reason.REASON_CREDENTIAL_INVALID)
    return Presented(CREDENTIAL_SESSION, token)
