"""`accord migrate`, for databases that gateways do not migrate at startup (MIGRATE_ON_START=false)."""

from accord_gateway import logs, startup
from accord_gateway.settings import Settings


def migrate(settings: Settings) -> None:
    """Raises StartupError."""
    logs.configure(settings)
    with startup.open_database(settings) as addresses:
        startup.retry_while_unavailable(
            addresses, lambda: startup.require_migrated(addresses, migrate=True), wait=settings.db_start_wait
        )
