"""The outbox: every outcome of this device until the centre has said that it holds it.

One SQLite database, write-ahead log, `synchronous=FULL`: when `record` returns, the outcome survives a power cut.
Two processes write (`infer` records, `relay` marks receipts); all others open it read-only. SQLite comes with apsw, because
the system's own may be one of the versions (3.7.0 to 3.51.2) whose log reset can corrupt the database.

Inside the database an outcome has a number: the base of its epoch plus its seq. The base of the first epoch is 0; there are more
only after a damaged outbox was rebuilt (`edge.outbox.rebuild`). When there is no more room, what has its receipt goes, the oldest
first; what has none is never removed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.contract.seqset import SeqSet
from edge.errors import OutboxFull
from edge.outbox.file import STEP
from edge.outbox.reader import OutboxReader, Stream
from edge.outbox.size import RESULTS_BYTES
from edge.outbox.witness import Witness


@dataclass(frozen=True)
class Entry:
    """What is to be recorded; `payload` is asked for once the seq is known, inside the transaction.

    earlier_keys: under which the same intake may have been recorded before the site's key was changed.
    """

    source_key: str
    kind: str
    payload: Callable[[int], bytes]
    pixel_hash: str | None = None
    original_name: str = ""
    place: str = ""
    earlier_keys: tuple[str, ...] = ()


class Outbox(OutboxReader):
    """One device's outbox. Not for several threads."""

    def __init__(self, path: Path, device: str, *, results_bytes: int = RESULTS_BYTES) -> None:
        """Open the database for writing; see `OutboxReader`."""
        super().__init__(path, device, read_only=False, results_bytes=results_bytes)
        self._witness: Witness | None = None

    def close(self) -> None:
        """Close the database."""
        super().close()
        if self._witness is not None:
            self._witness.close()

    def record(self, entry: Entry) -> tuple[int, bool]:
        """Commit one outcome; return (seq, True), or (the earlier seq, False) if its source key is already there.

        Raises:
            OutboxFull: if there is no room, even without what has its receipt. Nothing has changed then.
        """
        while (answer := self._try_to_record(entry)) is None:
            if not self.evict(STEP):
                raise OutboxFull(f"The outbox is full: {self.waiting()} outcomes wait for the centre's receipt. All are kept.")
        if answer[1]:
            if self._witness is None:
                self._witness = Witness(self._path)
            self._witness.note(self.epoch, answer[0])
        return answer

    def _try_to_record(self, entry: Entry) -> tuple[int, bool] | None:
        """Record one outcome; None if the pages do not suffice."""
        with self._file.transaction():
            row = self._recorded((entry.source_key, *entry.earlier_keys))
            if row is not None:
                if row[1] != entry.place:  # not the same intake again after a crash, but another file
                    self._db.execute("INSERT OR IGNORE INTO repeat VALUES (?, ?, ?)", (entry.place, row[0], entry.original_name))
                return self._seq(row[0]), False
            if self._file.is_full():
                return None
            seq = int(self._file.one("UPDATE stream SET last_seq = last_seq + 1 WHERE base = ? RETURNING last_seq", self._base)[0])
            payload = entry.payload(seq)
            self._db.execute(
                "INSERT INTO outcome (number, source_key, pixel_hash, kind, payload, original_name, place, crc) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    self._base + seq, entry.source_key, entry.pixel_hash, entry.kind, payload, entry.original_name,
                    entry.place, zlib.crc32(payload),
                ),
            )  # fmt: skip
            return seq, True

    def _recorded(self, source_keys: Iterable[str]) -> tuple[Any, ...] | None:
        one = "SELECT number, place FROM outcome WHERE source_key = ?"
        return next((tuple(row) for key in source_keys for row in self._db.execute(one, (key,))), None)

    def mark_receipted(self, through: int, plus: Iterable[tuple[int, int]], quarantined: Iterable[tuple[int, str]] = ()) -> int:
        """Note which numbers the centre has committed; return how many outcomes were waiting for just that."""
        # Only the few that wait are walked, not the thousands that are kept after their receipt.
        waiting = "SELECT number FROM outcome INDEXED BY outcome_waiting WHERE receipted = 0 AND number BETWEEN ? AND ?"
        found = sorted({row[0] for span in [(1, through), *plus] for row in self._db.execute(waiting, span)})
        self._file.each("UPDATE outcome SET receipted = 1 WHERE number = ?", found)
        with self._file.transaction():
            for number, reason in quarantined:
                self._db.execute("UPDATE outcome SET receipted = 1, quarantined = ? WHERE number = ?", (reason, number))
        return len(found)

    def rewind(self, held: SeqSet, stream: Stream | None = None) -> int:
        """The centre holds no more than `held` of an epoch (the present one): let all else that is still here wait again.

        Return how many now do. What was quarantined waits as well: the centre that lost the rows may have lost the quarantine.
        """
        stream = stream or self.streams()[-1]
        lost = "SELECT number FROM outcome WHERE receipted = 1 AND number BETWEEN ? AND ?"
        spans = [(stream.base + first, stream.base + last) for first, last in held.holes(stream.last_seq)]
        found = [row[0] for span in spans for row in self._db.execute(lost, span)]
        self._file.each("UPDATE outcome SET receipted = 0, quarantined = NULL WHERE number = ?", found)
        return len(found)

    def forget(self, keep: int) -> int:
        """Remove the oldest receipted outcomes beyond the newest `keep`; an unreceipted one is never removed."""
        rows = self._db.execute("SELECT number FROM outcome WHERE receipted = 1 ORDER BY number DESC LIMIT -1 OFFSET ?", (keep,))
        return self._remove([row[0] for row in rows])

    def evict(self, count: int) -> int:
        """Remove the `count` oldest receipted outcomes to make room; return how many there were."""
        rows = self._db.execute("SELECT number FROM outcome WHERE receipted = 1 ORDER BY number LIMIT ?", (count,))
        return self._remove([row[0] for row in rows])

    def make_room(self, share: float) -> int:
        """Remove the oldest receipted outcomes until at most `share` of the room is used; return how many went."""
        gone = 0
        while self._file.used() > share and (count := self.evict(STEP)):
            gone += count
        return gone

    def _remove(self, numbers: list[int]) -> int:
        if numbers:
            self._file.each("DELETE FROM outcome WHERE number = ?", numbers)
            with self._file.transaction():
                self._db.execute("DELETE FROM repeat WHERE number NOT IN (SELECT number FROM outcome)")
        # So that `outbox_bytes` sees the room, or that there is none: who takes files in goes by that.
        self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        return len(numbers)
