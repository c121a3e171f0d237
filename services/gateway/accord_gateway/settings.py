"""Every setting of the gateway. This is the only module that reads the environment, and `.env` where there is one."""

import base64
import binascii
import difflib
import ipaddress
import json
import os
import re
from collections.abc import Iterator
from datetime import timedelta
from email.utils import parseaddr
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import SplitResult, unquote, urlsplit

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretBytes,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from accord_gateway.refusals import StartRefused

if TYPE_CHECKING:
    from accord_auth.providers import ProviderSettings

ENV_FILE = Path(".env")
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
DURATION_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
RATE_LIMIT_STORAGES = ("async+memory", "async+redis", "async+rediss")


class SettingsError(StartRefused):
    """Everything that is wrong with the settings, by name."""

    exit_code = 2

    def __init__(self, faults: dict[str, str]) -> None:
        self.faults = faults
        width = max(map(len, faults))
        lines = "\n".join(f"  {name:{width}}  {fault}" for name, fault in faults.items())
        super().__init__(f"Accord cannot start with these settings (.env.example explains each):\n{lines}")


def _duration(value: object) -> object:
    if not isinstance(value, str):
        return value
    if not (parts := re.fullmatch(r"(\d+)(ms|[smhd])", value.strip())):
        raise ValueError("must be a number with a unit, such as 500ms, 90s, 45m, 12h or 30d")
    return timedelta(seconds=int(parts[1]) * DURATION_UNITS[parts[2]])


def _postgres_url(value: SecretStr) -> SecretStr:
    url = urlsplit(value.get_secret_value())
    if url.scheme not in ("postgresql", "postgres") or not url.path.strip("/"):
        raise ValueError("must look like postgresql://user:password@host:5432/database")
    return value


def _secret_key(value: SecretStr) -> SecretStr:
    key = value.get_secret_value()
    if len(key.encode()) < 32 or len(set(key)) < 10:
        raise ValueError("must be at least 32 random bytes, such as `openssl rand -base64 48` prints")
    return value


def _rate_limit_storage(value: SecretStr) -> SecretStr:
    url = urlsplit(value.get_secret_value())
    if url.scheme not in RATE_LIMIT_STORAGES or not _has_usable_port(url):
        raise ValueError("must be async+memory://, or look like async+redis://host:6379")
    return value


def _has_usable_port(url: SplitResult) -> bool:
    try:
        return url.port is None or url.port > 0
    except ValueError:
        return False


def _encryption_keys(value: object) -> object:
    """`2026-11:base64,2026-05:base64`, the one that encrypts first."""
    if not isinstance(value, str):
        return value
    keys: dict[str, bytes] = {}
    for part in value.split(","):
        name, _, text = part.strip().partition(":")
        try:
            key = base64.b64decode(text, validate=True)
        except binascii.Error:
            key = b""
        known = name in keys or key in keys.values()
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name) or len(key) != 32 or len(set(key)) < 10 or known:
            raise ValueError("must look like 2026-11:KEY,2026-05:OLDER, each KEY from `openssl rand -base64 32`")
        keys[name] = key
    return keys


def _smtp_url(value: SecretStr) -> SecretStr:
    url = urlsplit(value.get_secret_value())
    if url.scheme not in ("smtp", "smtps") or not url.hostname or not _has_usable_port(url):
        raise ValueError("must look like smtps://user:password@host:465, or smtp://user:password@host:587 for STARTTLS")
    if not unquote(f"{url.username}{url.password}").isascii():
        raise ValueError("must have a user and password in ASCII: the log-in of SMTP knows no other letters")
    return value


def _mail_from(value: str) -> str:
    _, address = parseaddr(value)
    local, _, domain = address.partition("@")
    stands_alone = value == address or value.endswith(f"<{address}>")
    if not (value.isprintable() and stands_alone and re.fullmatch(r"[!-~]+", local) and _is_domain(domain)):
        raise ValueError("must look like Example <accounts@example.com>")
    return value


def _is_domain(text: str) -> bool:
    try:
        return re.fullmatch(r"[A-Za-z0-9.-]+", text.encode("idna").decode()) is not None
    except UnicodeError:  # a part of it is empty or too long
        return False


def _app_url(value: str) -> str:
    url = urlsplit(value)
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        raise ValueError("must look like https://app.example.com")
    return value.rstrip("/")


def _json(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError('must be JSON, such as {"corp": {"issuer": …, "client_id": …, "client_secret": …}}') from None


def _issuer(value: str) -> str:
    url = urlsplit(value)
    if url.scheme not in ("https", "http") or not url.hostname or not _has_usable_port(url) or set(value) & set("?#@ "):
        raise ValueError("must look like https://login.example.com, as the provider's own metadata have it")
    if url.scheme == "http" and not is_loopback(url.hostname):
        raise ValueError("must be https, unless the provider runs on this machine")
    return value


def _redirect_uri(value: str) -> str:
    url = urlsplit(value)
    if not url.scheme or not (url.netloc or url.path) or set(value) & set("#* "):
        raise ValueError(
            "must be whole addresses without wildcard and fragment, as in https://app.example.com/signed-in"
        )
    return value


def _scopes(value: tuple[str, ...]) -> tuple[str, ...]:
    if "openid" not in value or not all(re.fullmatch(r"[!#-\[\]-~]+", scope) for scope in value):
        raise ValueError("must have openid among them, and no spaces")
    return value


def _listed(value: object) -> object:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _networks(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        networks = [ipaddress.ip_network(part.strip()) for part in value.split(",")]
    except ValueError:
        networks = []
    if not networks or not all(network.prefixlen for network in networks):  # 0.0.0.0/0 would be to believe everybody
        raise ValueError(
            "must be addresses and networks, such as 10.0.0.0/8,192.0.2.7,2001:db8::/48, and never everybody"
        )
    return networks


def _readable(path: Path) -> Path:
    if not path.is_file() or not os.access(path, os.R_OK):
        raise ValueError("must be a file that this account can read")
    return path


def cores() -> int:
    """How many cores this process may use: a container's quota counts, the cores of its machine do not."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CPU_QUOTA.read_text().split()
        return max(1, min(allowed, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup, or the quota "max"
        return allowed


def _production_defaults() -> dict[str, object]:
    return {"workers": cores(), "reflection": "off", "migrate_on_start": False, "log_format": "json"}


Port = Annotated[int, Field(ge=0, le=65535)]
Duration = Annotated[timedelta, BeforeValidator(_duration), Field(gt=timedelta())]
PostgresUrl = Annotated[SecretStr, AfterValidator(_postgres_url)]
ReadableFile = Annotated[Path, AfterValidator(_readable)]


SmtpUrl = Annotated[SecretStr, AfterValidator(_smtp_url)]
MailFrom = Annotated[str, AfterValidator(_mail_from)]
AppUrl = Annotated[str, AfterValidator(_app_url)]
EncryptionKeys = Annotated[dict[str, SecretBytes], NoDecode, BeforeValidator(_encryption_keys)]
Listed = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]
TrustedProxies = Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_networks)]


class Provider(BaseModel):
    """An OpenID Connect provider that is no preset. Its name is its key in PROVIDERS."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: Annotated[str, AfterValidator(_issuer)]
    client_id: str = Field(min_length=1)
    client_secret: SecretStr = Field(min_length=1)
    display_name: str | None = None
    scopes: Annotated[tuple[str, ...], AfterValidator(_scopes)] = ("openid", "email", "profile")


ProviderName = Annotated[str, Field(pattern="^[a-z0-9-]{1,50}$")]
Providers = Annotated[dict[ProviderName, Provider], NoDecode, BeforeValidator(_json)]
RedirectUris = Annotated[tuple[Annotated[str, AfterValidator(_redirect_uri)], ...], NoDecode, BeforeValidator(_listed)]


class Settings(BaseSettings):
    """The names are those of the environment in small letters; `.env.example` says what each is for."""

    model_config = SettingsConfigDict(env_file=ENV_FILE, env_ignore_empty=True, extra="ignore", frozen=True)

    accord_env: Literal["development", "production"] = "development"
    state_folder: Path = Path(".accord")

    host: str = "127.0.0.1"
    port: Port = 50051
    workers: int = Field(default=1, ge=1, le=256)
    max_concurrent_calls: int = Field(default=1000, ge=1)
    drain_seconds: int = Field(default=20, ge=0, le=3600)
    metrics_host: str = "127.0.0.1"
    metrics_port: Port = 9464
    reflection: Literal["on", "signed-in", "off"] = "on"

    tls_cert_file: ReadableFile | None = None
    tls_key_file: ReadableFile | None = None
    tls_client_ca_file: ReadableFile | None = None
    tls_at_proxy: bool = False

    database_url: PostgresUrl | None = None
    database_direct_url: PostgresUrl | None = None
    db_pooler: bool = False
    db_pool_size: int = Field(default=10, ge=1, le=1000)
    db_pool_wait: Duration = timedelta(seconds=2)
    db_statement_timeout: Duration = timedelta(seconds=30)
    migrate_on_start: bool = True

    secret_key: Annotated[SecretStr, AfterValidator(_secret_key)] | None = None
    encryption_keys: EncryptionKeys = {}
    password_min_length: int = Field(default=15, ge=8, le=128)
    verified_email_required: bool = False
    session_lifetime: Duration = timedelta(days=30)
    session_idle_lifetime: Duration = timedelta(days=14)
    deleted_accounts_kept: Duration = timedelta(days=30)
    cleanup_interval: Duration = timedelta(minutes=10)
    app_url: AppUrl = "http://127.0.0.1:3000"

    google_client_id: str | None = None
    google_client_secret: SecretStr | None = None
    providers: Providers = {}
    provider_redirect_uris: RedirectUris = ()
    link_providers_by_email: bool = False

    smtp_url: SmtpUrl | None = None
    mail_from: MailFrom = "Accord <accord@localhost>"

    trusted_proxies: TrustedProxies = ()
    rate_limit_storage: Annotated[SecretStr, AfterValidator(_rate_limit_storage)] = SecretStr("async+memory://")

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "console"

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_production(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {**_production_defaults(), **values} if values.get("accord_env") == "production" else values

    def provider_settings(self) -> "list[ProviderSettings]":
        """Google, if it is set up, and those of PROVIDERS."""
        from accord_auth.providers import ProviderSettings  # which knows more than settings need

        found = []
        if self.google_client_id and self.google_client_secret:
            found.append(
                ProviderSettings(
                    name="google",
                    display_name="Google",
                    issuer="https://accounts.google.com",
                    client_id=self.google_client_id,
                    client_secret=self.google_client_secret.get_secret_value(),
                    parameters={"access_type": "offline"},  # its way to be asked for a refresh token
                )
            )
        return found + [
            ProviderSettings(
                name=name,
                display_name=provider.display_name or name.capitalize(),
                issuer=provider.issuer,
                client_id=provider.client_id,
                client_secret=provider.client_secret.get_secret_value(),
                scopes=provider.scopes,
            )
            for name, provider in self.providers.items()
        ]

    @property
    def production(self) -> bool:
        return self.accord_env == "production"


def read_settings() -> Settings:
    """Raises SettingsError with every fault there is, those that only combinations of settings show included."""
    faults: dict[str, str] = {}
    try:
        settings = Settings()
    except ValidationError as error:
        faults = {str(fault["loc"][0]).upper(): _sentence(fault) for fault in error.errors()}
        # A second reading without the faulty ones finds what else is wrong.
        settings = Settings(**{name.lower(): _default(name.lower()) for name in faults})
    for name, fault in (*_contradictions(settings), *_production_faults(settings), *_misspelled()):
        faults.setdefault(name, fault)
    if faults:
        raise SettingsError(faults)
    return settings


def _default(name: str) -> Any:
    default = Settings.model_fields[name].default
    # A plain dict would be merged with the faulty one of the environment.
    return MappingProxyType(default) if isinstance(default, dict) else default


def _sentence(fault: ErrorDetails) -> str:
    sentence = str(fault["ctx"]["error"]) if fault["type"] == "value_error" else fault["msg"]
    # Those of which a part is secret are not repeated either.
    if "Provider" in str(Settings.model_fields[str(fault["loc"][0])].annotation) and len(fault["loc"]) > 1:
        sentence = f"{'.'.join(str(part) for part in fault['loc'][1:])}: {sentence}"
    secret = any(kind in str(Settings.model_fields[str(fault["loc"][0])].annotation) for kind in ("Secret", "Provider"))
    return sentence if secret else f"{sentence} (it is {str(fault['input'])!r})"


def _contradictions(settings: Settings) -> Iterator[tuple[str, str]]:
    if bool(settings.tls_cert_file) != bool(settings.tls_key_file):
        missing = "TLS_KEY_FILE" if settings.tls_cert_file else "TLS_CERT_FILE"
        yield missing, "must be set too: a certificate and its key come together"
    if settings.tls_client_ca_file and not settings.tls_cert_file:
        yield "TLS_CERT_FILE", "must be set too: only a server with a certificate can ask clients for theirs"
    if settings.db_pooler and not settings.database_direct_url:
        yield "DATABASE_DIRECT_URL", "must be set with DB_POOLER: LISTEN and migrations do not work through a pooler"
    if settings.database_direct_url and not settings.database_url:
        yield "DATABASE_URL", "must be set too: DATABASE_DIRECT_URL is only for LISTEN and migrations"
    if settings.metrics_port and settings.metrics_port == settings.port:
        yield "METRICS_PORT", "must differ from PORT"
    yield from _provider_contradictions(settings)


def _provider_contradictions(settings: Settings) -> Iterator[tuple[str, str]]:
    if bool(settings.google_client_id) != bool(settings.google_client_secret):
        missing = "GOOGLE_CLIENT_SECRET" if settings.google_client_id else "GOOGLE_CLIENT_ID"
        yield missing, "must be set too: a client's id and its secret come together"
    if settings.google_client_id and "google" in settings.providers:
        yield "PROVIDERS", "must not have google, which GOOGLE_CLIENT_ID sets up"
    if (settings.google_client_id or settings.providers) and not settings.provider_redirect_uris:
        yield "PROVIDER_REDIRECT_URIS", "must be set too: where providers may send people back to"


def _production_faults(settings: Settings) -> Iterator[tuple[str, str]]:
    if not settings.production:
        return
    yield from _database_faults(settings)
    if not settings.secret_key:
        yield (
            "SECRET_KEY",
            "must be set in production, the same for every gateway: `openssl rand -base64 48` prints one",
        )
    if not settings.encryption_keys:
        yield (
            "ENCRYPTION_KEYS",
            "must be set in production, the same for every gateway: a name, a colon and what `openssl rand -base64 32` prints",
        )
    yield from _production_provider_faults(settings)
    yield from _mail_faults(settings)
    if settings.reflection == "on":
        yield "REFLECTION", "must be signed-in or off in production"
    if not (settings.tls_cert_file or settings.tls_at_proxy or is_loopback(settings.host)):
        yield "TLS_CERT_FILE", f"must be set to listen on {settings.host}, or TLS_AT_PROXY=true if a proxy ends TLS"
    if settings.tls_at_proxy and not settings.trusted_proxies:
        yield "TRUSTED_PROXIES", "must list the proxy of TLS_AT_PROXY, or rate limits take all its callers for one"


def _production_provider_faults(settings: Settings) -> Iterator[tuple[str, str]]:
    if plain := [name for name, provider in settings.providers.items() if not provider.issuer.startswith("https://")]:
        yield "PROVIDERS", f"must have https issuers in production, and {', '.join(plain)} has none"
    for uri in settings.provider_redirect_uris:
        url = urlsplit(uri)
        if url.scheme == "http" and not is_loopback(url.hostname or ""):
            yield "PROVIDER_REDIRECT_URIS", "must not have http addresses of other machines in production"


def _database_faults(settings: Settings) -> Iterator[tuple[str, str]]:
    from accord_db.tls import require_verified_tls  # takes a while, and only production asks

    if not settings.database_url:
        yield "DATABASE_URL", "must be set in production: the embedded PostgreSQL is for development"
    for name in ("database_url", "database_direct_url"):
        url: SecretStr | None = getattr(settings, name)
        if url and (fault := require_verified_tls(url.get_secret_value())):
            yield name.upper(), f"must verify the server's certificate in production: {fault}"


def _mail_faults(settings: Settings) -> Iterator[tuple[str, str]]:
    if not settings.smtp_url:
        yield "SMTP_URL", "must be set in production: without it mail is only kept as files"
    if settings.mail_from == Settings.model_fields["mail_from"].default:
        yield "MAIL_FROM", "must be set in production: an address that your mail server may send from"
    if not settings.app_url.startswith("https://"):
        yield "APP_URL", "must be https:// in production: links with tokens in them lead there"


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _misspelled() -> Iterator[tuple[str, str]]:
    """Names in `.env` that are nearly those of settings: they would be ignored in silence."""
    known = [name.upper() for name in Settings.model_fields]
    for name in dotenv_values(ENV_FILE):
        if name.upper() not in known and (near := difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.85)):
            yield name, f"is not a setting, but {near[0]} is: correct it in {ENV_FILE}"
