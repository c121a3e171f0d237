"""The secret key of an installation, which seals tokens, and its encryption keys."""

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

# Names the key that is derived from the secret key if ENCRYPTION_KEYS is empty.
DEVELOPMENT_KEY = "development"


def secret_key(settings: Settings) -> bytes:
    """SECRET_KEY or, in development without it, a generated key that stays in STATE_FOLDER. Raises StartupError."""
    if settings.secret_key:
        return settings.secret_key.get_secret_value().encode()
    try:
        return _generated_once(settings.state_folder / "secret_key")
    except OSError as error:
        raise StartupError(
            f"Cannot save a secret key: {error}. Set STATE_FOLDER to a writable folder, or set SECRET_KEY."
        ) from None


def _generated_once(file: Path) -> bytes:
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_name(f"{file.name}.{os.getpid()}")
        new.touch(mode=0o600)
        new.write_text(secrets.token_urlsafe(48))
        with suppress(FileExistsError):  # if two gateways start together, the second uses the key of the first
            os.link(new, file)
        new.unlink()
    return file.read_bytes()


def keyring(settings: Settings, secret: bytes) -> "Keyring":
    """ENCRYPTION_KEYS or, in development without them, one key derived from the secret key."""
    from accord_auth.encryption import Keyring  # 8 MiB that supervisors and most commands do not need

    keys = {name: key.get_secret_value() for name, key in settings.encryption_keys.items()}
    return Keyring(keys or {DEVELOPMENT_KEY: hashlib.sha256(b"accord encryption\0" + secret).digest()})
