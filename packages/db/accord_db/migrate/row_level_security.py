"""Row-level security in migrations that are written from the models, of which alembic knows nothing."""

from collections.abc import Iterator
from typing import Any

from alembic.operations.ops import CreateTableOp, ExecuteSQLOp, MigrateOperation, MigrationScript

from accord_db.engine.row_level_security import raised


def add_row_level_security(_context: Any, _revision: Any, scripts: list[MigrationScript]) -> None:
    """With each new table that tenants have rows in comes its wall. It goes with the table, too."""
    for script in scripts:
        assert script.upgrade_ops is not None
        script.upgrade_ops.ops[:] = _with_walls(script.upgrade_ops.ops)


def _with_walls(operations: list[MigrateOperation]) -> Iterator[MigrateOperation]:
    yield from operations
    for operation in operations:
        if isinstance(operation, CreateTableOp):
            yield from map(ExecuteSQLOp, raised(operation.to_table()))
