"""What passes between the supervisor and its workers, whose code may be newer than the supervisor's after a reload.

Messages of the worker are JSON, and those of the supervisor pickled, without classes, so that either side reads what the other has written. Add fields, and change none.
"""

import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from accord_gateway.errors import StartupError

if TYPE_CHECKING:
    from accord_gateway.settings import Settings
    from accord_gateway.startup import ServeConfig

Unchangeable = Mapping[str, str | bool]

RESTART_NEEDED: Final = (
    "state_folder",
    "server",
    "host",
    "port",
    "unix_socket",
    "workers",
    "metrics_host",
    "metrics_port",
)
"""The settings of what the supervisor holds: sockets, and the number of workers, each of which has a socket of its own."""


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """The configuration of workers. The supervisor reads `serialized` only if it has written it."""

    serialized: bytes
    drain_seconds: int
    log_level: str
    log_format: str

    @classmethod
    def of(cls, config: "ServeConfig") -> Self:
        settings = config.settings
        return cls(pickle.dumps(config), settings.drain_seconds, settings.log_level, settings.log_format)

    def to_json(self) -> dict[str, object]:
        return asdict(self) | {"serialized": self.serialized.hex()}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        known = {name: fields[name] for name in cls.__dataclass_fields__}
        return cls(**known | {"serialized": bytes.fromhex(fields["serialized"])})


def unchangeable(settings: "Settings") -> Unchangeable:
    """What only a restart can change, by the name of the setting."""
    values: dict[str, str | bool] = {name.upper(): str(getattr(settings, name)) for name in RESTART_NEEDED}
    return values | {"DATABASE_URL": settings.database_url is None}


def require_unchanged(settings: "Settings", running: Unchangeable) -> None:
    """Raises StartupError."""
    changed = [name for name, value in unchangeable(settings).items() if running.get(name) != value]
    if changed:
        names = " and ".join(filter(None, (", ".join(changed[:-1]), changed[-1])))
        raise StartupError(f"{names} cannot change by a reload. Restart the gateway, or undo the change.")
