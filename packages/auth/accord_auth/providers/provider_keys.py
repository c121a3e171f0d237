"""A provider's public keys (RFC 7517, RFC 8725)."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key

from accord_auth.providers.encodings import from_base64url
from accord_auth.providers.errors import SignInFailed


class Algorithm(NamedTuple):
    """The type of its key, and its hash."""

    kty: str
    crv: str | None
    hash: Callable[[bytes], "hashlib._Hash"]


# No symmetric algorithms: the client's secret, or a public key used as a secret, could sign.
ALGORITHMS: Final[Mapping[str, Algorithm]] = {
    "RS256": Algorithm("RSA", None, hashlib.sha256),
    "RS384": Algorithm("RSA", None, hashlib.sha384),
    "RS512": Algorithm("RSA", None, hashlib.sha512),
    "PS256": Algorithm("RSA", None, hashlib.sha256),
    "PS384": Algorithm("RSA", None, hashlib.sha384),
    "PS512": Algorithm("RSA", None, hashlib.sha512),
    "ES256": Algorithm("EC", "P-256", hashlib.sha256),
    "ES384": Algorithm("EC", "P-384", hashlib.sha384),
    "ES512": Algorithm("EC", "P-521", hashlib.sha512),
    "EdDSA": Algorithm("OKP", "Ed25519", hashlib.sha512),
    "Ed25519": Algorithm("OKP", "Ed25519", hashlib.sha512),
}

# NIST SP 800-131A requires 2048 bits. Verification with more than 8192, or with a long exponent, is expensive.
_RSA_BITS: Final = range(2048, 8193)
_MAX_EXPONENT_BYTES: Final = 4


class ProviderKeys:
    """A JWK set as the provider publishes it."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        keys = document.get("keys")
        if not isinstance(keys, list):
            raise SignInFailed("its keys are not a JWK set")
        self._keys = [key for key in keys if isinstance(key, dict)]

    def find(self, algorithm: str, kid: str | None) -> Key | None:
        """Without a `kid`, exactly one key must fit the algorithm. Raises SignInFailed if several keys fit."""
        fitting = [key for key in self._keys if kid in (None, key.get("kid")) and _signs(key, algorithm)]
        found = list(_usable(fitting))
        if len(found) > 1:
            raise SignInFailed("several of its keys fit the ID token")
        return found[0] if found else None


def _signs(key: Mapping[str, Any], name: str) -> bool:
    algorithm, operations = ALGORITHMS[name], key.get("key_ops", ["verify"])
    return (
        key.get("kty") == algorithm.kty
        and key.get("crv") == algorithm.crv
        and key.get("use", "sig") == "sig"
        and key.get("alg", name) == name
        and isinstance(operations, list)
        and "verify" in operations
    )


def _usable(keys: list[dict[str, Any]]) -> Iterator[Key]:
    """Skips keys that are invalid or too weak (RFC 7517, section 5)."""
    for key in keys:
        public: dict[str, Any] = {name: key[name] for name in ("kty", "crv", "n", "e", "x", "y") if name in key}
        try:
            if public["kty"] == "RSA" and not _is_strong(public):
                continue
            yield JWKRegistry.import_key(public)
        except (JoseError, KeyError, TypeError, ValueError):
            continue


def _is_strong(key: Mapping[str, Any]) -> bool:
    modulus, exponent = from_base64url(key["n"]), from_base64url(key["e"])
    return int.from_bytes(modulus).bit_length() in _RSA_BITS and len(exponent) <= _MAX_EXPONENT_BYTES
