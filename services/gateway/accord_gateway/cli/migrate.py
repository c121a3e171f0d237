"""`accord migrate`: for databases that the gateway does not migrate by itself."""

from accord_gateway import logs, startup
from accord_gateway.settings import Settings


def migrate(settings: Settings) -> None:
    """Raises StartRefused."""
    logs.configure(settings)
    with startup.visited(settings) as addresses:
        startup.when_reachable(
            addresses, lambda: startup.require_migrated(addresses, migrate=True), wait=settings.db_start_wait
        )
