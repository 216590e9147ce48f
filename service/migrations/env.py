"""Run by Alembic, inside `service.migrations.migrate`: it gets the writer's connection, already in a transaction."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=context.config.attributes.get("metadata"),
    render_as_batch=True,  # SQLite changes a column only by copying its table
)
# No begin_transaction(): the writer began it, and it alone commits, after the checks.
context.run_migrations()
