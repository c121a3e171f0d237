"""Migrations: apply them, ask how far a database is, write the next. `python -m accord_db.migrate --help`.

What a serving process needs is imported here. Writing and checking migrations takes alembic, and is imported from
`drafts`, `drift` and `lint` by whoever does that.
"""

from accord_db.migrate.apply import Patience, apply
from accord_db.migrate.errors import MigrationError
from accord_db.migrate.state import current_and_head, is_current

__all__ = ["MigrationError", "Patience", "apply", "current_and_head", "is_current"]
