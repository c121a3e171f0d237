"""Migrations: apply them, compare a database with them, write the next one. `python -m accord_db.migrate --help`.

This package imports only what a serving process needs. Modules that import alembic (`autogenerate`, `drift`, `lint`) are
imported where they are used.
"""

from accord_db.migrate.apply import LockRetry, apply
from accord_db.migrate.revisions import MigrationError
from accord_db.migrate.state import current_and_head, is_current

__all__ = ["LockRetry", "MigrationError", "apply", "current_and_head", "is_current"]
