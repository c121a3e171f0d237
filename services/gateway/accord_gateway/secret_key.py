"""The keys of an installation: the one that seals, and those that encrypt."""

import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from accord_gateway.errors import StartupError
from accord_gateway.settings import Settings

if TYPE_CHECKING:
    from accord_auth.encryption import Keyring

# The name of the key that is made of the secret key where ENCRYPTION_KEYS has none.
DEVELOPMENT_KEY = "development"


def secret_key(settings: Settings) -> bytes:
    """The one of the settings; in development, where none has to be set, one that is made once and kept. Raises
    StartRefused."""
    if settings.secret_key:
        return settings.secret_key.get_secret_value().encode()
    try:
        return _kept(settings.state_folder / "secret_key")
    except OSError as error:
        raise StartupError(
            f"No key can be kept: {error}. Set STATE_FOLDER to a folder of yours, or SECRET_KEY."
        ) from None


def _kept(file: Path) -> bytes:
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_name(f"{file.name}.{os.getpid()}")
        new.touch(mode=0o600)
        new.write_text(secrets.token_urlsafe(48))
        with suppress(FileExistsError):  # of two gateways that start together, the second takes the first one's
            os.link(new, file)
        new.unlink()
    return file.read_bytes()


def keyring(settings: Settings, secret: bytes) -> "Keyring":
    """Those of the settings; in development, where none has to be set, one that is made of the secret key."""
    from accord_auth.encryption import Keyring  # 8 MiB that supervisors and other commands do not need

    keys = {name: key.get_secret_value() for name, key in settings.encryption_keys.items()}
    return Keyring(keys or {DEVELOPMENT_KEY: hashlib.sha256(b"accord encryption\0" + secret).digest()})
