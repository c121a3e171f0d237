"""Every setting of the gateway. This is the only module that reads the environment, and `.env` where there is one."""

import difflib
import ipaddress
import os
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from dotenv import dotenv_values
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from accord_gateway.refusals import StartRefused

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
    password_min_length: int = Field(default=15, ge=8, le=128)
    session_lifetime: Duration = timedelta(days=30)
    rate_limit_storage: Annotated[SecretStr, AfterValidator(_rate_limit_storage)] = SecretStr("async+memory://")

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "console"

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_production(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {**_production_defaults(), **values} if values.get("accord_env") == "production" else values

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
        settings = Settings(**{name.lower(): Settings.model_fields[name.lower()].default for name in faults})
    for name, fault in (*_contradictions(settings), *_production_faults(settings), *_misspelled()):
        faults.setdefault(name, fault)
    if faults:
        raise SettingsError(faults)
    return settings


def _sentence(fault: ErrorDetails) -> str:
    sentence = str(fault["ctx"]["error"]) if fault["type"] == "value_error" else fault["msg"]
    secret = "SecretStr" in str(Settings.model_fields[str(fault["loc"][0])].annotation)
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


def _production_faults(settings: Settings) -> Iterator[tuple[str, str]]:
    if not settings.production:
        return
    yield from _database_faults(settings)
    if not settings.secret_key:
        yield (
            "SECRET_KEY",
            "must be set in production, the same for every gateway: `openssl rand -base64 48` prints one",
        )
    if settings.reflection == "on":
        yield "REFLECTION", "must be signed-in or off in production"
    if not (settings.tls_cert_file or settings.tls_at_proxy or _is_loopback(settings.host)):
        yield "TLS_CERT_FILE", f"must be set to listen on {settings.host}, or TLS_AT_PROXY=true if a proxy ends TLS"


def _database_faults(settings: Settings) -> Iterator[tuple[str, str]]:
    from accord_db.tls import require_verified_tls  # takes a while, and only production asks

    if not settings.database_url:
        yield "DATABASE_URL", "must be set in production: the embedded PostgreSQL is for development"
    for name in ("database_url", "database_direct_url"):
        url: SecretStr | None = getattr(settings, name)
        if url and (fault := require_verified_tls(url.get_secret_value())):
            yield name.upper(), f"must verify the server's certificate in production: {fault}"


def _is_loopback(host: str) -> bool:
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
