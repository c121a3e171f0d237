"""Run by alembic. It connects to nothing by itself: the connection is handed in, with its locks and time limits set."""

from functools import partial

from alembic import context

configure = partial(
    context.configure,
    target_metadata=context.config.attributes.get("metadata"),
    # A migration that fails leaves those before it in place, and no lock is held longer than one migration takes.
    transaction_per_migration=True,
    compare_server_default=True,
)

if context.is_offline_mode():
    # Not the driver's paramstyle, for which every % would be doubled.
    configure(dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, literal_binds=True)
else:
    configure(connection=context.config.attributes["connection"])

with context.begin_transaction():
    context.run_migrations()
