"""What a provider says about itself (OpenID Connect Discovery 1.0, RFC 8414), as far as we have use for it."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from accord_auth.providers.faults import SignInFailed
from accord_auth.providers.signing_keys import ALGORITHMS

# What we can do at a token endpoint, the better one first.
_CLIENT_AUTHENTICATIONS: Final = ("client_secret_basic", "client_secret_post")


@dataclass(frozen=True, slots=True)
class Metadata:
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None
    client_authentication: str
    # Those of ours that the provider signs with.
    algorithms: frozenset[str]
    # Whether it says at the redirect URI who it is (RFC 9207).
    names_itself: bool


def metadata_address(issuer: str) -> str:
    return issuer.rstrip("/") + "/.well-known/openid-configuration"


def read_metadata(document: Mapping[str, Any], *, issuer: str, insecure_loopback: bool) -> Metadata:
    """Raises SignInFailed if it is somebody else's, or does not offer what is asked of a provider here."""
    if document.get("issuer") != issuer:  # exactly: OpenID Connect Discovery 1.0, 4.3
        raise SignInFailed("its metadata name another issuer")
    _require(document, "response_types_supported", {"code"})
    _require(document, "code_challenge_methods_supported", {"S256"})
    # A plain http provider on this machine is for development; one that is anywhere else may not lead to it either.
    insecure = insecure_loopback and urlsplit(issuer).scheme == "http"
    names_itself = document.get("authorization_response_iss_parameter_supported", False)
    if not isinstance(names_itself, bool):
        raise SignInFailed("its metadata have authorization_response_iss_parameter_supported of a wrong type")
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
        names_itself=names_itself,
    )


def _endpoint(document: Mapping[str, Any], name: str, insecure_loopback: bool) -> str:
    address = document.get(name)
    if not isinstance(address, str) or not is_secure(address, insecure_loopback=insecure_loopback):
        raise SignInFailed(f"its metadata have no https address as {name}")
    return address


def _client_authentication(document: Mapping[str, Any]) -> str:
    offered = _listed(document, "token_endpoint_auth_methods_supported") or {"client_secret_basic"}
    for method in _CLIENT_AUTHENTICATIONS:
        if method in offered:
            return method
    raise SignInFailed("its token endpoint takes no client secret")


def _algorithms(document: Mapping[str, Any]) -> frozenset[str]:
    offered = _listed(document, "id_token_signing_alg_values_supported")
    algorithms = ALGORITHMS.keys() if offered is None else ALGORITHMS.keys() & offered
    if not algorithms:
        raise SignInFailed("it signs with no algorithm that is accepted here")
    return frozenset(algorithms)


def _require(document: Mapping[str, Any], name: str, wanted: set[str]) -> None:
    offered = _listed(document, name)
    if offered is not None and not wanted <= offered:
        raise SignInFailed(f"its metadata do not list {', '.join(wanted)} in {name}")


def _listed(document: Mapping[str, Any], name: str) -> set[str] | None:
    """None if the provider does not say."""
    listed = document.get(name)
    if listed is None:
        return None
    if not isinstance(listed, list) or not all(isinstance(entry, str) for entry in listed):
        raise SignInFailed(f"its metadata have {name} of a wrong type")
    return set(listed)


def is_secure(address: str, *, insecure_loopback: bool) -> bool:
    """Whether it is https, or leads to this machine and that is enough. Nothing but host, port, path and query is in it."""
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
