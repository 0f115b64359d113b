"""Run by Alembic: it uses the one connection that the caller holds, with its lock."""

from __future__ import annotations

from alembic import context

from broker.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
