from __future__ import annotations

from tests.support.fixtures import mosquitto, postgres, postgres_database

__all__ = ["mosquitto", "postgres", "postgres_database"]
