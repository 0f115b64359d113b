"""The outbox: every outcome of this device until the centre has said that it holds it.

One SQLite database, write-ahead log, `synchronous=FULL`: when `record` returns, the outcome survives a power cut.
Two processes write (`infer` records, `relay` marks receipts); all others open it read-only. SQLite comes with apsw, because
the system's own may be one of the versions (3.7.0 to 3.51.2) whose log reset can corrupt the database.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from edge.contract.seqset import SeqSet
from edge.errors import OutboxError

_BUSY_MS = 10_000
_SCHEMA = """
CREATE TABLE stream (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    device     TEXT NOT NULL,
    epoch      TEXT NOT NULL,
    last_seq   INTEGER NOT NULL
) STRICT;
CREATE TABLE outcome (
    seq           INTEGER PRIMARY KEY,
    source_key    TEXT NOT NULL UNIQUE,
    pixel_hash    TEXT,
    kind          TEXT NOT NULL,
    payload       BLOB NOT NULL,
    receipted     INTEGER NOT NULL DEFAULT 0,
    quarantined   TEXT,
    original_name TEXT NOT NULL,           -- stays on the device
    place         TEXT NOT NULL            -- file name under done/ or aside/
) STRICT;
CREATE TABLE repeat (                      -- a later file with the same source key, for instance a DICOM object sent again
    place         TEXT PRIMARY KEY,
    seq           INTEGER NOT NULL,
    original_name TEXT NOT NULL
) STRICT;
CREATE INDEX outcome_waiting ON outcome (seq) WHERE receipted = 0;
PRAGMA user_version = 1;
"""


@dataclass(frozen=True)
class Entry:
    """What is to be recorded; `payload` is asked for once the seq is known, inside the transaction."""

    source_key: str
    kind: str
    payload: Callable[[int], bytes]
    pixel_hash: str | None = None
    original_name: str = ""
    place: str = ""


class Row(NamedTuple):
    """One outcome as it will be sent."""

    seq: int
    payload: bytes


@dataclass(frozen=True)
class Known:
    """An outcome that is already recorded under a source key."""

    seq: int
    pixel_hash: str | None
    kind: str


class Outbox:
    """One device's outbox. Not for several threads."""

    def __init__(self, path: Path, device: str, *, read_only: bool = False) -> None:
        """Open the database, making it (with a new epoch) if it is not there.

        Raises:
            OutboxError: if it cannot be opened, is damaged, or belongs to another device.
        """
        self._path = path
        try:
            self._db = _open(path, read_only=read_only)
            if not read_only:
                _create(self._db, device)
            elif self._one("PRAGMA user_version")[0] == 0:
                raise OutboxError(f"The outbox {path} is only just being made; try again in a moment.")
            found = self._one("SELECT device, epoch FROM stream")
        except apsw.Error as error:
            raise OutboxError(
                f"The outbox {path} cannot be used ({error}). Check that the disk is there, writable and not full."
            ) from None
        if found[0] != device:
            raise OutboxError(
                f"The outbox {path} belongs to device {found[0]!r}, not {device!r}. "
                "Give each device its own `state` folder, or restore the name."
            )
        self.device: str = found[0]
        self.epoch: str = found[1]

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def record(self, entry: Entry) -> tuple[int, bool]:
        """Commit one outcome; return (seq, True), or (the earlier seq, False) if its source key is already there."""
        with _Transaction(self._db):
            row = self._db.execute("SELECT seq, place FROM outcome WHERE source_key = ?", (entry.source_key,)).fetchone()
            if row is not None:
                if row[1] != entry.place:  # not the same intake again after a crash, but another file
                    self._db.execute("INSERT OR IGNORE INTO repeat VALUES (?, ?, ?)", (entry.place, row[0], entry.original_name))
                return int(row[0]), False
            seq = int(self._one("UPDATE stream SET last_seq = last_seq + 1 RETURNING last_seq")[0])
            self._db.execute(
                "INSERT INTO outcome (seq, source_key, pixel_hash, kind, payload, original_name, place) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (seq, entry.source_key, entry.pixel_hash, entry.kind, entry.payload(seq), entry.original_name, entry.place),
            )
            return seq, True

    def find(self, source_key: str) -> Known | None:
        """Return the outcome recorded under a source key."""
        row = self._db.execute("SELECT seq, pixel_hash, kind FROM outcome WHERE source_key = ?", (source_key,)).fetchone()
        return None if row is None else Known(*row)

    def unreceipted(self, after: int, limit: int) -> list[Row]:
        """Return up to `limit` outcomes without a receipt and with seq > `after`, in order."""
        rows = self._db.execute(
            "SELECT seq, payload FROM outcome WHERE receipted = 0 AND seq > ? ORDER BY seq LIMIT ?", (after, limit)
        )
        return [Row._make(row) for row in rows]

    def payload(self, seq: int) -> bytes | None:
        """Return the payload of one outcome that still has no receipt."""
        row = self._db.execute("SELECT payload FROM outcome WHERE seq = ? AND receipted = 0", (seq,)).fetchone()
        return None if row is None else bytes(row[0])

    def mark_receipted(self, through: int, plus: Iterable[tuple[int, int]], quarantined: Iterable[tuple[int, str]] = ()) -> int:
        """Note what the centre has committed; return how many outcomes were waiting for just that."""
        with _Transaction(self._db):
            count = 0
            for first, last in [(1, through), *plus]:
                self._db.execute(
                    # Only the few that wait are walked, not the thousands that are kept after their receipt.
                    "UPDATE outcome INDEXED BY outcome_waiting SET receipted = 1 WHERE receipted = 0 AND seq BETWEEN ? AND ?",
                    (first, last),
                )
                count += self._db.changes()
            for seq, reason in quarantined:
                self._db.execute("UPDATE outcome SET receipted = 1, quarantined = ? WHERE seq = ?", (reason, seq))
            return count

    def rewind(self, held: SeqSet) -> int:
        """The centre holds no more than `held`: let all else that is still here wait again; return how many now do.

        What was quarantined waits as well: the centre that lost the rows may have lost the quarantine.
        """
        with _Transaction(self._db):
            count = 0
            for first, last in held.holes(self.last_seq()):
                self._db.execute(
                    "UPDATE outcome SET receipted = 0, quarantined = NULL WHERE receipted = 1 AND seq BETWEEN ? AND ?",
                    (first, last),
                )
                count += self._db.changes()
            return count

    def forget(self, keep: int) -> int:
        """Remove the oldest receipted outcomes beyond the newest `keep`; an unreceipted one is never removed."""
        with _Transaction(self._db):
            self._db.execute(
                "DELETE FROM outcome WHERE receipted = 1 AND seq <= "
                "(SELECT seq FROM outcome WHERE receipted = 1 ORDER BY seq DESC LIMIT 1 OFFSET ?)",
                (keep,),
            )
            count = self._db.changes()
            self._db.execute("DELETE FROM repeat WHERE seq NOT IN (SELECT seq FROM outcome)")
            return count

    def last_seq(self) -> int:
        """Return the newest seq, 0 in a new epoch."""
        return int(self._one("SELECT last_seq FROM stream")[0])

    def waiting(self) -> int:
        """Return how many outcomes have no receipt."""
        return int(self._one("SELECT count(*) FROM outcome WHERE receipted = 0")[0])

    def waiting_bytes(self) -> int:
        """Return how many bytes the payloads without a receipt have together."""
        return int(self._one("SELECT coalesce(sum(length(payload)), 0) FROM outcome WHERE receipted = 0")[0])

    def lowest_unreceipted(self) -> int:
        """Return the first seq without a receipt; last seq + 1 when all have one."""
        row = self._one("SELECT min(seq) FROM outcome WHERE receipted = 0")
        return self.last_seq() + 1 if row[0] is None else int(row[0])

    def data_version(self) -> int:
        """Return a number that changes when another process has committed."""
        return int(self._one("PRAGMA data_version")[0])

    def listing(self, limit: int, *, waiting_only: bool = False) -> list[dict[str, Any]]:
        """Return the newest outcomes as plain values, for people and scripts on the device."""
        names = ("seq", "kind", "receipted", "quarantined", "original_name", "place", "payload")
        rows = self._db.execute(
            "SELECT seq, kind, receipted, quarantined, original_name, place, payload FROM outcome "
            "WHERE receipted <= ? ORDER BY seq DESC LIMIT ?",
            (0 if waiting_only else 1, limit),
        )
        return [dict(zip(names, row, strict=True)) for row in rows]

    def seq_of_files(self) -> dict[str, int]:
        """Return the seq in which each file ended that is still remembered, by the sender's name for it."""
        rows = self._db.execute("SELECT original_name, seq FROM repeat UNION ALL SELECT original_name, seq FROM outcome")
        return {str(name): int(str(seq)) for name, seq in rows}

    def check_integrity(self) -> str:
        """Return "ok", or what SQLite found wrong."""
        return str(self._one("PRAGMA quick_check(1)")[0])

    def _one(self, sql: str) -> tuple[Any, ...]:
        row = self._db.execute(sql).fetchone()
        if row is None:
            raise apsw.CorruptError("a row that must be there is missing")
        return tuple(row)


class _Transaction:
    """BEGIN IMMEDIATE ... COMMIT; the write lock is taken at once, so that a busy wait happens where it can be waited out."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self._db.execute("COMMIT")
        elif self._db.in_transaction:
            self._db.execute("ROLLBACK")


def _open(path: Path, *, read_only: bool) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    db = apsw.Connection(str(path), flags=flags)
    db.set_busy_timeout(_BUSY_MS)
    if not read_only:
        db.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 4194304")
    return db


def _create(db: apsw.Connection, device: str) -> None:
    with _Transaction(db):
        version = int(next(db.execute("PRAGMA user_version"))[0])
        if version == 0:
            db.execute(_SCHEMA)
            db.execute("INSERT INTO stream VALUES (1, ?, ?, 0)", (device, secrets.token_hex(16)))
        elif version != 1:
            raise OutboxError(f"The outbox was written by a newer version of cxr-edge (layout {version}). Upgrade this software.")
