"""The keys of a provider, and which of them may have signed something (RFC 7517, RFC 8725)."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key

from accord_auth.providers.encodings import from_base64url
from accord_auth.providers.faults import SignInFailed


class Algorithm(NamedTuple):
    """What key it takes, and the hash that belongs to it."""

    kty: str
    crv: str | None
    hash: Callable[[bytes], "hashlib._Hash"]


# Asymmetric ones alone: with a symmetric one the client's own secret, or a public key taken for one, would sign.
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

# NIST SP 800-131A asks for 2048; with more than 8192, or a long exponent, to verify becomes work.
_RSA_BITS: Final = range(2048, 8193)
_LONGEST_EXPONENT: Final = 4  # bytes


class SigningKeys:
    """As they were published."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        keys = document.get("keys")
        if not isinstance(keys, list):
            raise SignInFailed("its keys are no JWK set")
        self._keys = [key for key in keys if isinstance(key, dict)]

    def find(self, name: str, kid: str | None) -> Key | None:
        """The one that signs with the algorithm `name` under that id. Without an id there must be only one that can."""
        fitting = [key for key in self._keys if kid in (None, key.get("kid")) and _signs(key, name)]
        found = list(_usable(fitting))
        if len(found) > 1:
            raise SignInFailed("more than one of its keys may have signed")
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
    """Those that are what they say: others of the set are none of our business (RFC 7517, 5)."""
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
    return int.from_bytes(modulus).bit_length() in _RSA_BITS and len(exponent) <= _LONGEST_EXPONENT
