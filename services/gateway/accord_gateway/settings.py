"""The settings of the gateway. Only this module reads the environment."""

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretBytes, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails

from accord_gateway.env_file import read_env_file
from accord_gateway.errors import StartupError
from accord_gateway.setting_values import (
    UNIX,
    AppUrl,
    BindHost,
    Duration,
    DurationByTable,
    DurationOrNone,
    EncryptionKeys,
    MailFrom,
    Origins,
    Port,
    PostgresUrl,
    Providers,
    RateLimitStorage,
    ReadableFile,
    RedirectUris,
    SecretKey,
    ServiceIdentities,
    ServiceName,
    SmtpUrl,
    TrustedProxies,
    is_loopback,
)

if TYPE_CHECKING:
    from accord_auth.providers import ProviderSettings

ENV_FILE = Path(".env")
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


class SettingsError(StartupError):
    """`problems` are keyed by setting, or by line of `.env`."""

    exit_code = 2

    def __init__(self, problems: dict[str, str]) -> None:
        self.problems = problems
        width = max(map(len, problems))
        lines = "\n".join(f"  {name:{width}}  {problem}" for name, problem in problems.items())
        super().__init__(f"Accord cannot start with these settings (.env.example explains each):\n{lines}")


def cores() -> int:
    """The number of cores that this process may use, limited by the CPU quota of its container."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CPU_QUOTA.read_text().split()
        return max(1, min(allowed, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup, or the quota "max"
        return allowed


def _production_defaults() -> dict[str, object]:
    return {
        "workers": cores(),
        "reflection": "off",
        "hsts": "host",
        "migrate_on_start": False,
        "log_format": "json",
    }


class Settings(BaseModel):
    """The names are those of the environment, in lower case. `.env.example` describes each setting."""

    model_config = ConfigDict(frozen=True, validate_default=False)

    accord_env: Literal["development", "production"] = "development"
    state_folder: Path = Path(".accord")

    server: Literal["accord", "grpcio"] = "accord"
    host: BindHost = "127.0.0.1"
    port: Port = 50051
    unix_socket: Path | None = None
    workers: int = Field(default=1, ge=1, le=256)
    max_concurrent_calls: int = Field(default=1000, ge=1)
    max_connections: int = Field(default=10_000, ge=1)
    max_connections_per_address: int = Field(default=1000, ge=1)
    drain_seconds: int = Field(default=20, ge=0, le=3600)
    metrics_host: BindHost = "127.0.0.1"
    metrics_port: Port = 9464
    reflection: Literal["on", "signed-in", "off"] = "on"
    grpc_compression: Literal["off", "gzip"] = "off"

    tls_cert_file: ReadableFile | None = None
    tls_key_file: ReadableFile | None = None
    tls_client_ca_file: ReadableFile | None = None
    tls_at_proxy: bool = False
    hsts: Literal["off", "host", "subdomains"] = "off"

    database_url: PostgresUrl | None = None
    database_direct_url: PostgresUrl | None = None
    db_pooler: bool = False
    db_start_wait: DurationOrNone = timedelta(seconds=30)
    db_pool_size: int = Field(default=10, ge=1, le=1000)
    db_pool_wait: Duration = timedelta(seconds=2)
    db_statement_timeout: Duration = timedelta(seconds=30)
    migrate_on_start: bool = True

    secret_key: SecretKey | None = None
    encryption_keys: EncryptionKeys = {}
    password_min_length: int = Field(default=15, ge=8, le=128)
    verified_email_required: bool = False
    session_lifetime: Duration = timedelta(days=30)
    session_idle_lifetime: Duration = timedelta(days=14)
    deleted_accounts_kept: Duration = timedelta(days=30)
    deleted_organizations_kept: Duration = timedelta(days=30)
    deleted_rows_kept: Duration = timedelta(days=30)
    deleted_rows_kept_in: DurationByTable = {}
    cleanup_interval: Duration = timedelta(minutes=10)
    allowed_origins: Origins = ()
    session_cookies: bool = False
    app_url: AppUrl = "http://127.0.0.1:3000"

    google_client_id: str | None = None
    google_client_secret: SecretStr | None = None
    providers: Providers = {}
    provider_redirect_uris: RedirectUris = ()
    link_providers_by_email: bool = False

    smtp_url: SmtpUrl | None = None
    mail_from: MailFrom = "Accord <accord@localhost>"

    service_issuer: ServiceName = "accord"
    service_audience: ServiceName = "accord"
    service_identities: ServiceIdentities = {}

    trusted_proxies: TrustedProxies = ()
    rate_limit_storage: RateLimitStorage = SecretStr("async+memory://")

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "console"

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_production(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {**_production_defaults(), **values} if values.get("accord_env") == "production" else values

    def provider_settings(self) -> "list[ProviderSettings]":
        """Google, if GOOGLE_CLIENT_ID is set, and the entries of PROVIDERS."""
        from accord_auth.providers import ProviderSettings  # imports the provider clients, which few commands need

        google = []
        if self.google_client_id and self.google_client_secret:
            google.append(
                ProviderSettings(
                    name="google",
                    display_name="Google",
                    issuer="https://accounts.google.com",
                    client_id=self.google_client_id,
                    client_secret=self.google_client_secret.get_secret_value(),
                    parameters={"access_type": "offline"},  # requests a refresh token
                )
            )
        return google + [
            ProviderSettings(
                name=name,
                display_name=provider.display_name or name.capitalize(),
                issuer=provider.issuer,
                client_id=provider.client_id,
                client_secret=provider.client_secret.get_secret_value(),
                scopes=provider.scopes,
                trusted_audiences=frozenset(provider.trusted_audiences),
            )
            for name, provider in self.providers.items()
        ]

    @property
    def proxy_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """Those of TRUSTED_PROXIES."""
        return tuple(proxy for proxy in self.trusted_proxies if proxy != UNIX)

    @property
    def trusts_unix_socket(self) -> bool:
        return UNIX in self.trusted_proxies

    @property
    def production(self) -> bool:
        return self.accord_env == "production"


def read_settings() -> Settings:
    """Raises SettingsError with every problem, including those of combinations of settings."""
    file = read_env_file(ENV_FILE, [name.upper() for name in Settings.model_fields])
    if file.problems:
        raise SettingsError(file.problems)
    values = _known(file.values) | _known(os.environ)
    try:
        settings, problems = Settings.model_validate(values), {}
    except ValidationError as error:
        problems = {str(each["loc"][0]): _sentence(each) for each in reversed(error.errors(include_url=False))}
        settings = Settings.model_validate({name: value for name, value in values.items() if name not in problems})
    problems = {name.upper(): problem for name, problem in problems.items()}
    for name, problem in (*_contradictions(settings), *_production_problems(settings), *_misspelled(file.values)):
        problems.setdefault(name, problem)
    if problems:
        raise SettingsError(problems)
    return settings


def read_state_folder() -> Path:
    """For commands to a running gateway, whose other settings this process may lack. Raises SettingsError if `.env` cannot be read."""
    file = read_env_file(ENV_FILE, [name.upper() for name in Settings.model_fields])
    if file.problems:
        raise SettingsError(file.problems)
    folder = (_known(file.values) | _known(os.environ)).get("state_folder")
    return Path(folder) if folder else Settings.model_fields["state_folder"].default


def ignore_libpq_environment(settings: Settings) -> list[str]:
    """Removes from this process's environment the variables of libpq that could lead to another server than DATABASE_URL or, without
    it, the embedded one. Returns those that were set."""
    from accord_db.engine.libpq_environment import drop_ignored_variables  # imports psycopg, which few commands need

    return drop_ignored_variables(os.environ, embedded=settings.database_url is None)


def _known(values: Mapping[str, str]) -> dict[str, str]:
    """Those that are settings and not empty."""
    return {name.lower(): value for name, value in values.items() if value and name.lower() in Settings.model_fields}


def _sentence(error: ErrorDetails) -> str:
    """Contains no part of a value that may be secret."""
    name, *path = map(str, error["loc"])
    annotation = Settings.model_fields[name].annotation
    sentence = error["msg"]
    if error["type"] == "value_error":
        sentence = str(error["ctx"]["error"])
        # Accord's validators begin with `must`. Other errors, such as those of urllib, may quote the value.
        sentence = sentence if sentence.startswith("must ") else "is not valid"
    if holds_secret(annotation):
        return f"{_place(path, _field_names(annotation))}{sentence}"
    value = str(error["input"])
    return f"{sentence} (it is {value!r})" if _may_be_shown(value) else sentence


def _place(path: list[str], fields: set[str]) -> str:
    """The invalid member of an object. Omits a key that is not a field, because it may be a misplaced secret."""
    return f"{'.'.join(path[:2])}: " if len(path) > 1 and path[1] in fields else ""


def _field_names(annotation: object) -> set[str]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return set(annotation.model_fields)
    return set().union(*map(_field_names, get_args(annotation)))


def holds_secret(annotation: object) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return any(holds_secret(field.annotation) for field in annotation.model_fields.values())
    return annotation in (SecretStr, SecretBytes) or any(map(holds_secret, get_args(annotation)))


def _may_be_shown(value: str) -> bool:
    """Not a URL, which may contain a password, nor several lines, which follow an unclosed quote."""
    return value.isprintable() and len(value) <= 100 and "://" not in value


def _contradictions(settings: Settings) -> Iterator[tuple[str, str]]:
    if bool(settings.tls_cert_file) != bool(settings.tls_key_file):
        missing = "TLS_KEY_FILE" if settings.tls_cert_file else "TLS_CERT_FILE"
        yield missing, "must be set too: a certificate needs its key"
    if settings.tls_client_ca_file and not settings.tls_cert_file:
        yield "TLS_CERT_FILE", "must be set too: client certificates require TLS"
    if settings.service_identities and not settings.tls_client_ca_file:
        yield "TLS_CLIENT_CA_FILE", "must be set too: it issues the certificates of SERVICE_IDENTITIES"
    if settings.db_pooler and not settings.database_direct_url:
        yield "DATABASE_DIRECT_URL", "must be set with DB_POOLER: LISTEN and migrations do not work through a pooler"
    if settings.database_direct_url and not settings.database_url:
        yield "DATABASE_URL", "must be set too: DATABASE_DIRECT_URL is only for LISTEN and migrations"
    if settings.metrics_port and settings.metrics_port == settings.port and not settings.unix_socket:
        yield "METRICS_PORT", "must differ from PORT"
    if settings.unix_socket and settings.server == "grpcio" and settings.workers > 1:
        yield "WORKERS", "must be 1 with UNIX_SOCKET and SERVER=grpcio, which cannot share the socket"
    if settings.trusts_unix_socket and not settings.unix_socket:
        yield "TRUSTED_PROXIES", "must not contain unix without UNIX_SOCKET, where the proxy connects"
    if settings.grpc_compression != "off" and settings.server == "grpcio":
        yield "GRPC_COMPRESSION", "must be off with SERVER=grpcio, which would also compress responses with secrets"
    yield from _provider_contradictions(settings)


def _provider_contradictions(settings: Settings) -> Iterator[tuple[str, str]]:
    if bool(settings.google_client_id) != bool(settings.google_client_secret):
        missing = "GOOGLE_CLIENT_SECRET" if settings.google_client_id else "GOOGLE_CLIENT_ID"
        yield missing, "must be set too: a client needs its id and its secret"
    if settings.google_client_id and "google" in settings.providers:
        yield "PROVIDERS", "must not contain google, which GOOGLE_CLIENT_ID configures"
    if (settings.google_client_id or settings.providers) and not settings.provider_redirect_uris:
        yield "PROVIDER_REDIRECT_URIS", "must be set too: providers redirect users there"


def _production_problems(settings: Settings) -> Iterator[tuple[str, str]]:
    if not settings.production:
        return
    yield from _database_problems(settings)
    if not settings.secret_key:
        yield (
            "SECRET_KEY",
            "must be set in production, to the same value for all gateways, for example from `openssl rand -base64 48`",
        )
    if not settings.encryption_keys:
        yield (
            "ENCRYPTION_KEYS",
            "must be set in production, to the same value for all gateways: a name, a colon and the output of `openssl rand -base64 32`",
        )
    yield from _production_provider_problems(settings)
    for origin in settings.allowed_origins:
        if origin.startswith("http://") and not is_loopback(urlsplit(origin).hostname or ""):
            yield "ALLOWED_ORIGINS", "must not contain http origins of other machines in production"
    yield from _mail_problems(settings)
    if settings.reflection == "on":
        yield "REFLECTION", "must be signed-in or off in production"
    if not (settings.tls_cert_file or settings.tls_at_proxy or is_loopback(settings.host) or settings.unix_socket):
        yield "TLS_CERT_FILE", f"must be set to listen on {settings.host}, or TLS_AT_PROXY=true if a proxy ends TLS"
    if settings.tls_at_proxy and not settings.trusted_proxies:
        yield (
            "TRUSTED_PROXIES",
            "must list the proxy of TLS_AT_PROXY: otherwise all its callers share their rate limits",
        )


def _production_provider_problems(settings: Settings) -> Iterator[tuple[str, str]]:
    if plain := [name for name, provider in settings.providers.items() if not provider.issuer.startswith("https://")]:
        yield "PROVIDERS", f"must have https issuers in production; not https: {', '.join(plain)}"
    for uri in settings.provider_redirect_uris:
        url = urlsplit(uri)
        if url.scheme == "http" and not is_loopback(url.hostname or ""):
            yield "PROVIDER_REDIRECT_URIS", "must not contain http URIs of other machines in production"


def _database_problems(settings: Settings) -> Iterator[tuple[str, str]]:
    from accord_db.engine.tls import require_verified_tls  # a slow import that only production needs

    if not settings.database_url:
        yield "DATABASE_URL", "must be set in production: the embedded PostgreSQL is for development"
    for name in ("database_url", "database_direct_url"):
        url: SecretStr | None = getattr(settings, name)
        if url and (problem := require_verified_tls(url.get_secret_value())):
            yield name.upper(), f"must verify the server's certificate in production: {problem}"


def _mail_problems(settings: Settings) -> Iterator[tuple[str, str]]:
    if not settings.smtp_url:
        yield "SMTP_URL", "must be set in production: without it, mail is only written to files"
    if settings.mail_from == Settings.model_fields["mail_from"].default:
        yield "MAIL_FROM", "must be set in production: an address that your mail server may send from"
    if not settings.app_url.startswith("https://"):
        yield "APP_URL", "must be https:// in production: mailed links with tokens lead there"


def _misspelled(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Names in `.env` that resemble a setting but are none, and would be ignored."""
    known = [name.upper() for name in Settings.model_fields]
    for name in names:
        if name.upper() not in known and (near := difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.85)):
            yield name, f"is not a setting. Correct it to {near[0]} in {ENV_FILE}"
