"""Adds row-level security to migrations that are written from the models: alembic does not compare it."""

from typing import Any

from alembic.operations.ops import CreateTableOp, ExecuteSQLOp, MigrationScript
from alembic.runtime.migration import MigrationContext
from sqlalchemy import MetaData

from accord_db.engine.row_level_security import enable_row_level_security


def add_row_level_security(context: MigrationContext, _revision: Any, scripts: list[MigrationScript]) -> None:
    """For each new tenant-bound table. For an existing table that becomes tenant-bound the author decides, since gateways of
    the release before set no tenant for it and would find no rows. `migrate check` reports the missing policy."""
    metadata: MetaData = context.opts["target_metadata"]
    for script in scripts:
        assert script.upgrade_ops is not None
        created = [
            metadata.tables[each.table_name] for each in script.upgrade_ops.ops if isinstance(each, CreateTableOp)
        ]
        script.upgrade_ops.ops += [ExecuteSQLOp(sql) for table in created for sql in enable_row_level_security(table)]
