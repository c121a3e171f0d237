"""A real PostgreSQL beside the program that needs it: no installation, no container, no account, no TCP port."""

from accord_db.embedded.errors import EmbeddedPostgresError
from accord_db.embedded.server import EmbeddedPostgres

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError"]
