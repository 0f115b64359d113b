"""Fixtures for the `conftest.py` of a suite to import: real servers, started once for the suite."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser

from tests.support.browser import chromium
from tests.support.mosquitto import Mosquitto, loopback_mosquitto
from tests.support.postgres import Postgres, temporary_postgres

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium for one file of tests: while it runs, no other event loop can be started in its thread."""
    with chromium() as started:
        yield started


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL cluster for the whole suite; leave it running."""
    with temporary_postgres() as server:
        yield server


@pytest.fixture
def postgres_database(postgres: Postgres) -> Callable[[], str]:
    """Makes empty PostgreSQL databases: call it for a URL."""
    return lambda: postgres.create_database(f"test_{next(_numbers)}")


@pytest.fixture
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """A broker of the test's own, which it may stop and start."""
    with loopback_mosquitto(tmp_path_factory.mktemp("mosquitto")) as broker:
        yield broker
