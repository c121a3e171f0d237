"""The key that seals page tokens."""

import os
import secrets
from pathlib import Path

from accord_gateway.settings import Settings


def secret_key(settings: Settings) -> bytes:
    """The one of the settings; in development, where none has to be set, one that is made once and kept."""
    if settings.secret_key:
        return settings.secret_key.get_secret_value().encode()
    return _kept(settings.state_folder / "secret_key")


def _kept(file: Path) -> bytes:
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
            new.write(secrets.token_urlsafe(48))
    except FileExistsError:
        pass
    return file.read_bytes()
