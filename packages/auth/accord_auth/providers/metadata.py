"""A provider's metadata (OpenID Connect Discovery 1.0, RFC 8414)."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from accord_auth.providers.errors import SignInFailed
from accord_auth.providers.provider_keys import ALGORITHMS

# Supported at a token endpoint, in order of preference.
_CLIENT_AUTHENTICATIONS: Final = ("client_secret_basic", "client_secret_post")


@dataclass(frozen=True, slots=True)
class Metadata:
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None
    client_authentication: str
    # The accepted algorithms that the provider signs with.
    algorithms: frozenset[str]
    # Whether authorization responses have `iss` (RFC 9207).
    sends_issuer: bool


def metadata_address(issuer: str) -> str:
    return issuer.rstrip("/") + "/.well-known/openid-configuration"


def read_metadata(document: Mapping[str, Any], *, issuer: str, insecure_loopback: bool) -> Metadata:
    """Raises SignInFailed if the document belongs to another issuer, or a required feature is missing."""
    _check_issuer(document.get("issuer"), issuer)
    _require(document, "response_types_supported", {"code"})
    _require(document, "code_challenge_methods_supported", {"S256"})
    # Development accepts a plain http provider on loopback. The metadata of other providers must not point to loopback.
    insecure = insecure_loopback and urlsplit(issuer).scheme == "http"
    sends_issuer = document.get("authorization_response_iss_parameter_supported", False)
    if not isinstance(sends_issuer, bool):
        raise SignInFailed("authorization_response_iss_parameter_supported in its metadata is not a boolean")
    return Metadata(
        issuer=issuer,
        authorization_endpoint=_endpoint(document, "authorization_endpoint", insecure),
        token_endpoint=_endpoint(document, "token_endpoint", insecure),
        jwks_uri=_endpoint(document, "jwks_uri", insecure),
        userinfo_endpoint=(
            _endpoint(document, "userinfo_endpoint", insecure) if "userinfo_endpoint" in document else None
        ),
        client_authentication=_client_authentication(document),
        algorithms=_algorithms(document),
        sends_issuer=sends_issuer,
    )


def _check_issuer(found: object, issuer: str) -> None:
    """Compares exactly (OpenID Connect Discovery 1.0, section 4.3)."""
    if found == issuer:
        return
    if isinstance(found, str) and "{tenantid}" in found:  # Microsoft's addresses for several tenants
        raise SignInFailed("its metadata have no issuer of their own: set the issuer of one tenant")
    raise SignInFailed("its metadata name another issuer")


def _endpoint(document: Mapping[str, Any], name: str, insecure_loopback: bool) -> str:
    address = document.get(name)
    if not isinstance(address, str) or not is_secure(address, insecure_loopback=insecure_loopback):
        raise SignInFailed(f"{name} in its metadata is not an https address")
    return address


def _client_authentication(document: Mapping[str, Any]) -> str:
    offered = _listed(document, "token_endpoint_auth_methods_supported") or {"client_secret_basic"}
    for method in _CLIENT_AUTHENTICATIONS:
        if method in offered:
            return method
    raise SignInFailed("its token endpoint does not accept a client secret")


def _algorithms(document: Mapping[str, Any]) -> frozenset[str]:
    offered = _listed(document, "id_token_signing_alg_values_supported")
    algorithms = ALGORITHMS.keys() if offered is None else ALGORITHMS.keys() & offered
    if not algorithms:
        raise SignInFailed("it signs with no accepted algorithm")
    return frozenset(algorithms)


def _require(document: Mapping[str, Any], name: str, required: set[str]) -> None:
    offered = _listed(document, name)
    if offered is not None and not required <= offered:
        raise SignInFailed(f"{name} in its metadata does not list {', '.join(required)}")


def _listed(document: Mapping[str, Any], name: str) -> set[str] | None:
    """None if the metadata do not have the field."""
    listed = document.get(name)
    if listed is None:
        return None
    if not isinstance(listed, list) or not all(isinstance(entry, str) for entry in listed):
        raise SignInFailed(f"{name} in its metadata is not a list of strings")
    return set(listed)


def is_secure(address: str, *, insecure_loopback: bool) -> bool:
    """Whether the address is https, or http to loopback if that is allowed, without credentials and fragment."""
    if not address.isascii() or not address.isprintable() or " " in address or "\\" in address:
        return False
    try:
        url = urlsplit(address)
        host, _ = url.hostname, url.port
    except ValueError:
        return False
    if not host or url.username is not None or url.password is not None or "#" in address:
        return False
    return url.scheme == "https" or (url.scheme == "http" and insecure_loopback and _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
