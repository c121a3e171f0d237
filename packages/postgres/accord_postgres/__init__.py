"""PostgreSQL as a child process, without an installation, container, account or TCP port."""

from accord_postgres.errors import EmbeddedPostgresError
from accord_postgres.server import EmbeddedPostgres, Ended, Restarted, RestartFailed

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError", "Ended", "RestartFailed", "Restarted"]
