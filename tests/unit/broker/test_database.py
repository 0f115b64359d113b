from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import URL, inspect, text
from sqlalchemy.exc import DBAPIError

from broker import schema
from broker.database import migrate, parse_url, reader_engine, writer_engine
from broker.errors import StoreLocked, StoreMissing, StoreUnavailable
from broker.reader import Reader
from broker.sql_store import SqlStore
from tests.support.processes import free_port


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    if request.param == "sqlite":
        return parse_url(str(tmp_path / "centre.db"))
    make: Callable[[], str] = request.getfixturevalue("postgres_database")
    return parse_url(make())


@pytest.fixture
def store(url: URL) -> Iterator[SqlStore]:
    with closing(SqlStore(url)) as opened:
        yield opened


@pytest.mark.parametrize(
    ("given", "drivername", "database"),
    [
        ("sqlite:///a/centre.db", "sqlite", "a/centre.db"),
        ("/var/lib/centre.db", "sqlite", "/var/lib/centre.db"),
        ("centre.db", "sqlite", "centre.db"),
        ("postgresql://user@host/name", "postgresql+psycopg", "name"),
        ("postgres://user@host/name", "postgresql+psycopg", "name"),
    ],
)
def test_urls(given: str, drivername: str, database: str) -> None:
    url = parse_url(given)
    assert (url.drivername, url.database) == (drivername, database)


@pytest.mark.parametrize(
    "given", ["", " ", "sqlite://", "sqlite:///:memory:", "mysql://h/n", "what://", "postgresql://h:port/n", "://"]
)
def test_what_is_no_database(given: str) -> None:
    with pytest.raises(StoreMissing, match="use sqlite:///"):
        parse_url(given)


def test_a_wrong_url_does_not_show_its_password() -> None:
    with pytest.raises(StoreMissing) as caught:
        parse_url("mysql://user:secret@host/name")
    assert "secret" not in str(caught.value)


def test_migrations_make_the_tables_that_the_code_uses(url: URL, store: SqlStore) -> None:
    store.close()
    with writer_engine(url).connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection), schema.metadata)
        assert found == []
        indexes = {index["name"] for table in schema.metadata.tables for index in inspect(connection).get_indexes(table)}
        assert {index.name for table in schema.metadata.tables.values() for index in table.indexes} <= indexes


def test_a_newer_database_is_left_alone(url: URL, store: SqlStore) -> None:
    store.close()
    engine = writer_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreMissing, match="newer version"):
        SqlStore(url)
    with engine.connect() as connection, pytest.raises(StoreMissing):
        migrate(connection)


def test_a_reader_cannot_write(url: URL, store: SqlStore) -> None:
    with reader_engine(url).connect() as connection, pytest.raises(DBAPIError, match=r"read-?only"):
        connection.execute(schema.revision.update().values(number=7))


def test_the_writer_syncs_every_commit(tmp_path: Path) -> None:
    with writer_engine(parse_url(str(tmp_path / "centre.db"))).connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_reading_before_there_is_a_database(tmp_path: Path) -> None:
    with pytest.raises(StoreMissing, match="start `cxr-broker aggregate`"):
        Reader(parse_url(str(tmp_path / "none.db"))).totals()
    sqlite3.connect(tmp_path / "empty.db").close()
    (tmp_path / "empty.db").touch()
    with pytest.raises(StoreMissing, match="no tables yet"):
        Reader(parse_url(str(tmp_path / "empty.db"))).totals()


def test_reading_what_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_text("this is no database" * 100)
    with pytest.raises(StoreUnavailable, match="not a database"):
        Reader(parse_url(str(path))).totals()
    with pytest.raises((StoreUnavailable, StoreMissing)):
        SqlStore(parse_url(str(path)))


def test_reading_an_sqlite_file_with_odd_characters_in_its_name(tmp_path: Path) -> None:
    url = parse_url(str(tmp_path / "50% of #1?.db"))
    with closing(SqlStore(url)):
        assert Reader(url).totals().results == 0


def test_reading_after_the_writer_has_gone(url: URL, store: SqlStore) -> None:
    store.close()
    assert Reader(url).totals().results == 0


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreMissing, match="folder"):
        SqlStore(parse_url(str(tmp_path / "no" / "centre.db")))


def test_a_postgresql_that_is_not_there() -> None:
    url = parse_url(f"postgresql://centre@127.0.0.1:{free_port()}/centre")
    with pytest.raises(StoreUnavailable):
        SqlStore(url)
    with pytest.raises(StoreUnavailable):
        Reader(url).totals()


def test_the_lock_goes_with_the_store(url: URL, store: SqlStore) -> None:
    with pytest.raises(StoreLocked):
        SqlStore(url)
    store.close()
    store.close()
    with closing(SqlStore(url)):
        pass
