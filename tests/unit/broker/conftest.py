from __future__ import annotations

from tests.support.fixtures import postgres, postgres_database

__all__ = ["postgres", "postgres_database"]
