"""`accord migrate`: for databases that the gateway does not migrate by itself."""

from accord_gateway import logs, preparation
from accord_gateway.settings import Settings


def migrate(settings: Settings) -> None:
    """Raises StartRefused."""
    logs.configure(settings)
    with preparation.visited(settings) as addresses:
        preparation.require_migrated(addresses, migrate=True)
