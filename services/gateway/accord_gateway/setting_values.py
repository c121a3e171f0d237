"""The types of settings: how each parses its value, and the message for an invalid one, which begins with `must`."""

import base64
import binascii
import ipaddress
import json
import os
import re
from datetime import timedelta
from email.utils import parseaddr
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretBytes, SecretStr

DURATION_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
UNIX: Final = "unix"
"""The proxy that connects to UNIX_SOCKET, in TRUSTED_PROXIES."""
RATE_LIMIT_STORAGES = ("async+memory", "async+redis", "async+rediss")


def _duration(value: object) -> object:
    if not isinstance(value, str):
        return value
    if not (parts := re.fullmatch(r"(\d+)(ms|[smhd])", value.strip())):
        raise ValueError("must be a number with a unit, such as 500ms, 90s, 45m, 12h or 30d")
    return timedelta(seconds=int(parts[1]) * DURATION_UNITS[parts[2]])


def _durations(value: object) -> object:
    """`tasks:90d,invoices:365d`."""
    if not isinstance(value, str):
        return value
    parts = [part.strip().partition(":") for part in value.split(",")]
    durations = {name: _duration(duration) for name, _, duration in parts}
    if "" in durations or len(durations) < len(parts):
        raise ValueError("must look like tasks:90d,invoices:365d")
    return durations


def _postgres_url(value: SecretStr) -> SecretStr:
    from accord_db.engine.connection_string import url_problem  # imports psycopg, which few commands need

    url = value.get_secret_value().strip()
    if problem := url_problem(url):
        raise ValueError(problem)
    return SecretStr(url)


def _secret_key(value: SecretStr) -> SecretStr:
    key = value.get_secret_value()
    if len(key.encode()) < 32 or len(set(key)) < 10:
        raise ValueError("must be at least 32 random bytes, for example from `openssl rand -base64 48`")
    return value


def _rate_limit_storage(value: SecretStr) -> SecretStr:
    url = _split_secret(value)
    if (
        url.scheme not in RATE_LIMIT_STORAGES
        or not _has_usable_port(url)
        or (url.hostname and not _is_host(url.hostname))
        or not re.fullmatch(r"/?\d*", url.path)  # the number of the database
        or url.fragment
    ):
        raise ValueError("must be async+memory://, or look like async+redis://host:6379")
    return SecretStr(_with_ascii_host(value.get_secret_value()))


def _split_secret(value: SecretStr) -> SplitResult:
    try:
        return urlsplit(value.get_secret_value())
    except ValueError:  # its message may contain the password
        raise ValueError("must be a URL") from None


def _has_usable_port(url: SplitResult) -> bool:
    try:
        return url.port is None or url.port > 0
    except ValueError:
        return False


def _encryption_keys(value: object) -> object:
    """`2026-11:base64,2026-05:base64`, of which the first encrypts."""
    if not isinstance(value, str):
        return value
    keys: dict[str, bytes] = {}
    for part in value.split(","):
        name, _, text = part.strip().partition(":")
        try:
            key = base64.b64decode(text, validate=True)
        except binascii.Error:
            key = b""
        repeated = name in keys or key in keys.values()
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name) or len(key) != 32 or len(set(key)) < 10 or repeated:
            raise ValueError("must look like 2026-11:KEY,2026-05:OLDER, each KEY from `openssl rand -base64 32`")
        keys[name] = key
    return keys


def _smtp_url(value: SecretStr) -> SecretStr:
    url = _split_secret(value)
    # A path, query or fragment is the rest of a password whose special characters are not encoded.
    rest = url.path.strip("/") or url.query or url.fragment
    if url.scheme not in ("smtp", "smtps") or not _is_host(url.hostname) or not _has_usable_port(url) or rest:
        raise ValueError("must look like smtps://user:password@host:465, or smtp://user:password@host:587 for STARTTLS")
    if not unquote(f"{url.username}{url.password}").isascii():
        raise ValueError("must have a user and password in ASCII: SMTP authentication supports no other characters")
    return SecretStr(_with_ascii_host(value.get_secret_value()))


def _mail_from(value: str) -> str:
    _, address = parseaddr(value)
    local, _, domain = address.partition("@")
    is_only_address = value == address or value.endswith(f"<{address}>")
    if not (value.isprintable() and is_only_address and re.fullmatch(r"[!-~]+", local) and _is_domain(domain)):
        raise ValueError("must look like Example <accounts@example.com>")
    return value


def _is_domain(text: str) -> bool:
    try:
        domain = ascii_domain(text)
    except ValueError:
        return False
    labels = domain.removesuffix(".").split(".")
    return len(domain) <= 253 and all(re.fullmatch(r"[A-Za-z0-9-]{1,63}", label) for label in labels)


def _is_host(host: str | None) -> bool:
    """A domain or an IP address."""
    try:
        return bool(host and ascii_domain(host))
    except ValueError:
        return False


def ascii_domain(domain: str) -> str:
    """Encodes by IDNA 2008, like browsers and registries: `straße.de` is `xn--strae-oqa.de`. Python's codec follows IDNA 2003,
    in which it is `strasse.de`, a domain of another owner. Raises ValueError."""
    if domain.isascii():
        return domain
    from idna import encode  # imports tables that few installations need

    return encode(domain, uts46=True).decode()


def _with_ascii_host(url: str) -> str:
    """For URLs of connections and links. URLs that are compared must be set in ASCII."""
    parts = urlsplit(url)
    user, at, address = parts.netloc.rpartition("@")
    host, colon, port = address.partition(":")
    if host.isascii():
        return url
    return parts._replace(netloc=f"{user}{at}{ascii_domain(host)}{colon}{port}").geturl()


def _app_url(value: str) -> str:
    url = urlsplit(value)
    if url.scheme not in ("http", "https") or not _is_host(url.hostname) or url.query or url.fragment:
        raise ValueError("must look like https://app.example.com")
    return _with_ascii_host(value).rstrip("/")


def _json(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError('must be JSON, such as {"corp": {"issuer": …, "client_id": …, "client_secret": …}}') from None


def _service_identities(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, object_pairs_hook=_unique_names)
    except ValueError:
        raise ValueError(
            'must be JSON without repeated names, such as {"spiffe://example.com/billing": "billing"}'
        ) from None


def _unique_names(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("must not repeat a name")
    return members


def _identity(value: str) -> str:
    url = urlsplit(value)
    if not url.scheme or not (url.netloc or url.path) or not value.isascii() or set(value) & set("* "):
        raise ValueError("must be a URI exactly as in the certificate, such as spiffe://example.com/billing")
    return value


def _bind_host(value: str) -> str:
    if not _is_host(value):
        raise ValueError("must be an address or a host name")
    return ascii_domain(value)


def _issuer(value: str) -> str:
    if not value.isascii():
        raise ValueError("must be ASCII, as in the provider's metadata: a host such as straße.de is xn--strae-oqa.de")
    url = urlsplit(value)
    if url.scheme not in ("https", "http") or not url.hostname or not _has_usable_port(url) or set(value) & set("?#@ "):
        raise ValueError("must look like https://login.example.com, exactly as in the provider's metadata")
    if url.scheme == "http" and not is_loopback(url.hostname):
        raise ValueError("must be https, unless the provider runs on this machine")
    return value


def _origin(value: str) -> str:
    """Browsers send origins in lower case and without a default port, and they are compared as texts."""
    url = urlsplit(value)
    default_port = {"http": 80, "https": 443}.get(url.scheme)
    if value != f"{url.scheme}://{url.netloc}" or not default_port or not url.hostname or set(value) & set("*@"):
        raise ValueError("must be complete origins without a path or wildcards, such as https://app.example.com")
    if value != value.lower() or not value.isascii() or not _has_usable_port(url) or url.port == default_port:
        raise ValueError("must be as browsers send them: ASCII, lower case, without the default port")
    return value


def _redirect_uri(value: str) -> str:
    if not value.isascii():
        raise ValueError("must be ASCII, as browsers send them: a host such as straße.de is xn--strae-oqa.de")
    url = urlsplit(value)
    if not url.scheme or not (url.netloc or url.path) or set(value) & set("#* "):
        raise ValueError(
            "must be complete URIs without wildcards or fragments, such as https://app.example.com/signed-in"
        )
    return value


def _scopes(value: tuple[str, ...]) -> tuple[str, ...]:
    if "openid" not in value or not all(re.fullmatch(r"[!#-\[\]-~]+", scope) for scope in value):
        raise ValueError("must include openid, and contain no spaces")
    return value


def _split_list(value: object) -> object:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _proxies(value: object) -> object:
    if not isinstance(value, str):
        return value
    parts = [part.strip() for part in value.split(",")]
    try:
        networks = [ipaddress.ip_network(part) for part in parts if part != UNIX]
    except ValueError:
        networks = []
    proxies = [*networks, *(part for part in parts if part == UNIX)]
    if len(proxies) < len(parts) or not all(
        network.prefixlen for network in networks
    ):  # 0.0.0.0/0 would trust all callers
        raise ValueError(
            "must be addresses and networks, such as 10.0.0.0/8,192.0.2.7,2001:db8::/48, never all addresses, or unix"
        )
    return proxies


def _readable(path: Path) -> Path:
    if not path.is_file() or not os.access(path, os.R_OK):
        raise ValueError("must be a file that this user can read")
    return path


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


BindHost = Annotated[str, AfterValidator(_bind_host)]
Port = Annotated[int, Field(ge=0, le=65535)]
Duration = Annotated[timedelta, BeforeValidator(_duration), Field(gt=timedelta())]
DurationOrNone = Annotated[timedelta, BeforeValidator(_duration), Field(ge=timedelta())]
DurationByTable = Annotated[dict[str, Duration], BeforeValidator(_durations)]
PostgresUrl = Annotated[SecretStr, AfterValidator(_postgres_url)]
ReadableFile = Annotated[Path, AfterValidator(_readable)]
SmtpUrl = Annotated[SecretStr, AfterValidator(_smtp_url)]
MailFrom = Annotated[str, AfterValidator(_mail_from)]
AppUrl = Annotated[str, AfterValidator(_app_url)]
EncryptionKeys = Annotated[dict[str, SecretBytes], BeforeValidator(_encryption_keys)]
TrustedProxies = Annotated[tuple[IPv4Network | IPv6Network | Literal["unix"], ...], BeforeValidator(_proxies)]


class ProviderEntry(BaseModel):
    """An entry of PROVIDERS. Its key is the name of the provider."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: Annotated[str, AfterValidator(_issuer)]
    client_id: str = Field(min_length=1)
    client_secret: SecretStr = Field(min_length=1)
    display_name: str | None = None
    scopes: Annotated[tuple[str, ...], AfterValidator(_scopes)] = ("openid", "email", "profile")
    trusted_audiences: tuple[Annotated[str, Field(min_length=1)], ...] = ()


ProviderName = Annotated[str, Field(pattern="^[a-z0-9-]{1,50}$")]
Providers = Annotated[dict[ProviderName, ProviderEntry], BeforeValidator(_json)]
# The `iss` and `aud` of service tokens.
ServiceName = Annotated[str, Field(pattern="^[!-~]{1,255}$")]
# Service accounts by the URI in their certificates.
ServiceIdentities = Annotated[
    dict[Annotated[str, AfterValidator(_identity)], Annotated[str, Field(pattern="^[a-z][a-z0-9-]{0,62}$")]],
    BeforeValidator(_service_identities),
]
Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], BeforeValidator(_split_list)]
RedirectUris = Annotated[tuple[Annotated[str, AfterValidator(_redirect_uri)], ...], BeforeValidator(_split_list)]
SecretKey = Annotated[SecretStr, AfterValidator(_secret_key)]
RateLimitStorage = Annotated[SecretStr, AfterValidator(_rate_limit_storage)]
