"""Opening a database: its URL, its engine, its one writer, its migrations. See docs/adr/0003-one-writer-sqlite.md."""

from __future__ import annotations

import fcntl
import logging
from pathlib import Path
from typing import IO, Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from broker.errors import StoreLocked, StoreMissing, StoreUnavailable

_ADVISORY_LOCK = 0x6378722D65646765
"""The key of PostgreSQL's advisory lock: "cxr-edge" as a number, so that no other program takes it by chance."""

_BUSY_TIMEOUT_S = 30


def parse_url(database: str) -> URL:
    """Return the URL of `sqlite:///path`, `postgresql://...`, or the plain path of an SQLite file.

    Raises:
        StoreMissing: if it is none of these.
    """
    hint = "use sqlite:///path/to/centre.db or postgresql://user@host/name"
    if "://" not in database:
        if not database.strip():
            raise StoreMissing(f"The database has no name; {hint}.")
        return URL.create("sqlite", database=database)
    try:
        url = make_url(database)
    except (ArgumentError, ValueError):
        raise StoreMissing(f"{database!r} is no database URL; {hint}.") from None
    if url.drivername in {"postgresql", "postgres"}:
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in {"sqlite", "postgresql+psycopg"} or (
        url.drivername == "sqlite" and url.database in {None, "", ":memory:"}
    ):
        raise StoreMissing(f"{url.render_as_string()!r} is no database that can be used here; {hint}.")
    return url


def writer_engine(url: URL) -> Engine:
    """Return an engine for the one writer. SQLite: WAL, every commit synced to disk.

    Raises:
        StoreMissing: if the folder of an SQLite file does not exist.
    """
    if url.drivername != "sqlite":
        return _engine(url)
    path = Path(str(url.database))
    if not path.parent.is_dir():
        raise StoreMissing(f"The folder {path.parent} of the database does not exist; create it first.")
    engine = _engine(url, connect_args={"timeout": _BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin where this package says, not where the driver guesses
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def reader_engine(url: URL) -> Engine:
    """Return an engine that cannot write: SQLite opened with `mode=ro`, PostgreSQL with read-only transactions."""
    if url.drivername == "sqlite":
        path = str(Path(str(url.database)).absolute())
        uri = URL.create(
            "sqlite", database=f"file:{path.replace('?', '%3f').replace('#', '%23')}", query={"mode": "ro", "uri": "true"}
        )
        return _engine(uri, connect_args={"timeout": 5})
    return _engine(url, connect_args={"options": "-c default_transaction_read_only=on", "connect_timeout": 5})


def _engine(url: URL, **options: Any) -> Engine:
    try:
        return create_engine(url, poolclass=NullPool, **options)
    except (ArgumentError, NoSuchModuleError) as error:
        raise StoreMissing(f"The database URL cannot be used: {error}.") from None


def lock_file(url: URL) -> IO[str] | None:
    """Take the lock beside an SQLite file; it is held as long as the returned file is open. None for PostgreSQL.

    Raises:
        StoreLocked: if another aggregator holds it.
        StoreMissing: if the lock cannot be written there.
    """
    if url.drivername != "sqlite":
        return None
    path = Path(f"{url.database}.lock")
    try:
        lock = path.open("a")
    except OSError as error:
        raise StoreMissing(f"{path} cannot be written ({error.strerror}); check the folder and its owner.") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise StoreLocked(f"Another aggregator writes to {url.database}; stop it, or give this one another database.") from None
    return lock


def lock_session(connection: Connection) -> None:
    """Take PostgreSQL's advisory lock for as long as `connection` lives; nothing for SQLite.

    Raises:
        StoreLocked: if another aggregator holds it.
    """
    if connection.dialect.name != "postgresql":
        return
    taken = connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _ADVISORY_LOCK}).scalar_one()
    connection.commit()
    if not taken:
        raise StoreLocked("Another aggregator writes to this PostgreSQL database; stop it, or give this one another database.")


def migrate(connection: Connection) -> None:
    """Bring the tables to this software's version.

    Raises:
        StoreMissing: if a newer software made the database, or the tables cannot be created.
        StoreUnavailable: if the database does not answer.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
        connection.commit()
    except CommandError:
        raise StoreMissing("A newer version of this software made the database; install that version.") from None
    except SQLAlchemyError as error:
        raise StoreUnavailable(f"The tables cannot be created or brought up to date: {first_line(error)}.") from None


def first_line(error: BaseException) -> str:
    """Return what an error of the database says, without the statement and its values, which may be about patients."""
    cause = getattr(error, "orig", None) or error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0].rstrip(".")
