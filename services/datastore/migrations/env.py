"""What Alembic runs: the revisions, on the connection (and in the transaction) that it was handed."""

from __future__ import annotations

from alembic import context

from services.datastore import tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=tables.metadata,
    render_as_batch=True,
    output_buffer=context.config.attributes.get("output"),
)
with context.begin_transaction():
    context.run_migrations()
