from __future__ import annotations

from pathlib import Path

import pytest

from broker.fleet.authority import Authority
from broker.fleet.founding import found
from tests.support.fixtures import postgres, postgres_database
from tests.support.fleet_folder import SETTINGS, T0, Clock

__all__ = ["postgres", "postgres_database"]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authority(tmp_path: Path, clock: Clock) -> Authority:
    found(tmp_path / "authority", SETTINGS, T0)
    return Authority(tmp_path / "authority", clock)
