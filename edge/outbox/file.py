"""The outbox's database file: how it is opened, how large it may become, and how a transaction begins and ends.

Every connection of the device to it is made here, so that all keep one discipline:

- write-ahead log, `synchronous=FULL`: a commit that returned survives a power cut;
- the write lock is taken when a transaction begins, and waited for, never in the middle;
- no connection keeps a read open: whoever reads takes all rows at once. A log that some other program keeps from being reset
  is a full outbox, not a log without end;
- database and log together stay below a fixed size. SQLite's own page limit is the last line of that.
"""

from __future__ import annotations

import os
import secrets
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw

from edge.errors import OutboxError, OutboxFull, OutboxNewer, OutboxOlder
from edge.outbox.size import LOG_BYTES, room_for_outcomes

STEP = 500
"""Rows that one transaction changes at most: some 5 MiB of log."""

_BUSY_MS = 10_000
_LAYOUT = 3
_LOOKUPS = (  # for the clinic's page, which would otherwise read every outcome each time that it is looked at
    "CREATE INDEX outcome_place ON outcome (place)",
    "CREATE INDEX outcome_void ON outcome (number) WHERE kind = 'void'",
)
_STREAM = """
CREATE TABLE stream (                      -- one for each epoch; the newest is the present one, the others are closed
    base       INTEGER PRIMARY KEY,
    device     TEXT NOT NULL,
    epoch      TEXT NOT NULL UNIQUE,
    last_seq   INTEGER NOT NULL
) STRICT;
"""
_SCHEMA = f"""
{_STREAM}
CREATE TABLE outcome (
    number        INTEGER PRIMARY KEY,     -- base of its epoch + seq
    source_key    TEXT NOT NULL UNIQUE,
    pixel_hash    TEXT,
    kind          TEXT NOT NULL,
    payload       BLOB NOT NULL,
    receipted     INTEGER NOT NULL DEFAULT 0,
    quarantined   TEXT,
    original_name TEXT NOT NULL,           -- stays on the device
    place         TEXT NOT NULL,           -- file name under done/ or aside/
    crc           INTEGER NOT NULL         -- CRC-32 of the payload: SQLite would not see that a byte of it has changed
) STRICT;
CREATE TABLE repeat (                      -- a later file with the same source key, for instance a DICOM object sent again
    place         TEXT PRIMARY KEY,
    number        INTEGER NOT NULL,
    original_name TEXT NOT NULL
) STRICT;
CREATE INDEX outcome_waiting ON outcome (number) WHERE receipted = 0;
{";".join(_LOOKUPS)};
PRAGMA user_version = {_LAYOUT};
"""
_FROM_LAYOUT_1 = (
    "ALTER TABLE outcome RENAME COLUMN seq TO number",
    "ALTER TABLE outcome ADD COLUMN crc INTEGER NOT NULL DEFAULT 0",
    "UPDATE outcome SET crc = crc32(payload)",
    "ALTER TABLE repeat RENAME COLUMN seq TO number",
    "ALTER TABLE stream RENAME TO only_stream",
    _STREAM,
    "INSERT INTO stream SELECT 0, device, epoch, last_seq FROM only_stream",
    "DROP TABLE only_stream",
)


class OutboxFile:
    """One connection to the database of one device."""

    def __init__(self, path: Path, device: str, *, read_only: bool, results_bytes: int) -> None:
        """Open it, making it (with a new epoch) if it is not there.

        Raises:
            apsw.Error: if SQLite cannot use it.
            OutboxError: if it is only just being made, or has the layout of another version of this software.
        """
        self._log = f"{path}-wal"
        flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        self.db = apsw.Connection(str(path), flags=flags)
        self.db.set_busy_timeout(_BUSY_MS)
        if not read_only:
            for setting in ("journal_mode = WAL", "synchronous = FULL", "journal_size_limit = 4194304"):
                self.db.execute(f"PRAGMA {setting}").fetchall()  # one by one: apsw runs nothing beyond the first row
            self._create(device)
        version = self.one("PRAGMA user_version")[0]
        if version == 0:
            raise OutboxError(f"The outbox {path} is only just being made; try again in a moment.")
        if version > _LAYOUT:
            raise OutboxNewer("The outbox was written by a newer version of cxr-edge. Upgrade this software.")
        if version < _LAYOUT:
            raise OutboxOlder("The outbox was written by an older version of cxr-edge. `cxr-edge run` brings it up to date.")
        page = int(self.one("PRAGMA page_size")[0])
        self._most_pages = room_for_outcomes(results_bytes) // page
        self.one(f"PRAGMA max_page_count = {(results_bytes - LOG_BYTES) // page}")

    def one(self, sql: str, *values: object) -> tuple[Any, ...]:
        """Return the first row.

        Raises:
            apsw.CorruptError: if there is none.
        """
        row = self.db.execute(sql, values).fetchone()
        if row is None:
            raise apsw.CorruptError("a row that must be there is missing")
        return tuple(row)

    def each(self, sql: str, numbers: Sequence[int]) -> None:
        """Change the rows of these numbers, in transactions that keep the log short."""
        for start in range(0, len(numbers), STEP):
            with self.transaction():
                self.db.executemany(sql, [(number,) for number in numbers[start : start + STEP]])

    def used(self) -> float:
        """Return how much of the room for outcomes is taken; 1.0 is full. Pages of removed rows count as free."""
        taken = int(self.one("PRAGMA page_count")[0]) - int(self.one("PRAGMA freelist_count")[0])
        return taken / self._most_pages

    def is_full(self) -> bool:
        """Return whether no further outcome fits."""
        # One question instead of two, for every outcome until the file has reached its size.
        return int(self.one("PRAGMA page_count")[0]) >= self._most_pages and self.used() >= 1.0

    def transaction(self) -> Transaction:
        """Return a transaction, unless the log is so long already that it could outgrow its part of the room.

        Raises:
            OutboxFull: if a reader keeps the log from being reset; and within the transaction, when the disk is full.
        """
        if self._log_bytes() > LOG_BYTES // 2:
            self.db.set_busy_timeout(0)
            try:
                self.one("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                self.db.set_busy_timeout(_BUSY_MS)
            if self._log_bytes() > LOG_BYTES // 2:
                raise OutboxFull("The outbox cannot grow while another program reads it without end. End that program.")
        return Transaction(self.db)

    def _log_bytes(self) -> int:
        try:
            return os.stat(self._log).st_size
        except FileNotFoundError:
            return 0

    def _create(self, device: str) -> None:
        with Transaction(self.db):
            version = self.one("PRAGMA user_version")[0]
            if version == 0:
                self.db.execute(_SCHEMA)
                self.db.execute("INSERT INTO stream VALUES (0, ?, ?, 0)", (device, secrets.token_hex(16)))
            elif version < _LAYOUT:
                self.db.create_scalar_function("crc32", _crc, 1)
                for statement in (*(_FROM_LAYOUT_1 if version == 1 else ()), *_LOOKUPS, f"PRAGMA user_version = {_LAYOUT}"):
                    self.db.execute(statement)


def _crc(*payload: Any) -> int:
    return zlib.crc32(*payload)


def damage_note(path: Path) -> Path:
    """Return the file that is there once someone has found the outbox damaged, until it is rebuilt."""
    return path.with_name("outbox.damaged")


def damaged_outboxes(state: Path) -> list[Path]:
    """Return the outboxes that were put aside as damaged and are still there."""
    return sorted(state.glob("outbox-damaged-*.db"))


class Transaction:
    """BEGIN IMMEDIATE ... COMMIT; the write lock is taken at once, so that a busy wait happens where it can be waited out."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                self._db.execute("COMMIT")
        except apsw.FullError as full:
            error = full
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        if isinstance(error, apsw.FullError):
            raise OutboxFull("The disk that holds the outbox is full. Make room; what is in the outbox is kept.") from None
