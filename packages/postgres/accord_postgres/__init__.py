"""A real PostgreSQL beside the program that needs it: no installation, no container, no account, no TCP port."""

from accord_postgres.errors import EmbeddedPostgresError
from accord_postgres.server import EmbeddedPostgres

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError"]
