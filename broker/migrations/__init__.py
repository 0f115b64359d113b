"""Alembic migrations of the centre's database; `broker.database.migrate` runs them."""
