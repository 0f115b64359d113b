"""The outbox: every outcome of this device until the centre has said that it holds it.

One SQLite database, write-ahead log, `synchronous=FULL`: when `record` returns, the outcome survives a power cut.
Two processes write (`infer` records, `relay` marks receipts); all others open it read-only. SQLite comes with apsw, because
the system's own may be one of the versions (3.7.0 to 3.51.2) whose log reset can corrupt the database.

Inside the database an outcome has a number: the base of its epoch plus its seq. The base of the first epoch is 0; there are more
only after a damaged outbox was rebuilt (`edge.rebuild`). When there is no more room, what has its receipt goes, the oldest
first; what has none is never removed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from edge.contract.seqset import SeqSet
from edge.errors import OutboxDamaged, OutboxError, OutboxFull
from edge.outbox_file import STEP, OutboxFile, damage_note
from edge.outbox_size import RESULTS_BYTES
from edge.witness import Witness

_LISTED = ("number", "kind", "receipted", "quarantined", "original_name", "place", "payload")
_LISTING = "SELECT number, kind, receipted, quarantined, original_name, place, payload FROM outcome "
_VOIDED = (
    "SELECT payload ->> '$.epoch', payload ->> '$.voids' "
    "FROM (SELECT CAST(payload AS TEXT) AS payload FROM outcome WHERE kind = 'void')"
)
_NEXT = "The next start of `cxr-edge infer` saves what it holds."


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

    number: int
    payload: bytes


@dataclass(frozen=True)
class Known:
    """An outcome that is already recorded under a source key."""

    seq: int
    pixel_hash: str | None
    kind: str


class Stream(NamedTuple):
    """One epoch of this outbox: its outcomes have the numbers base + 1 to base + last_seq."""

    epoch: str
    base: int
    last_seq: int

    def numbers(self, held: SeqSet) -> SeqSet:
        """Return the numbers of those seqs of `held` that this epoch has given."""
        ranges = [(first, min(last, self.last_seq)) for first, last in [(1, held.through), *held.ranges]]
        return SeqSet(0, [(self.base + first, self.base + last) for first, last in ranges if first <= last])


class Outbox:
    """One device's outbox. Not for several threads."""

    def __init__(self, path: Path, device: str, *, read_only: bool = False, results_bytes: int = RESULTS_BYTES) -> None:
        """Open the database, making it (with a new epoch) if it is not there.

        Args: results_bytes: what the database and its log may take together; at least 32 MiB.

        Raises:
            OutboxDamaged: if it is damaged.
            OutboxError: if it cannot be opened, or belongs to another device.
        """
        self._path = path
        self._witness: Witness | None = None
        try:
            self._file = OutboxFile(path, device, read_only=read_only, results_bytes=results_bytes)
            found = self._file.one("SELECT device, epoch, base FROM stream ORDER BY base DESC LIMIT 1")
        except (apsw.CorruptError, apsw.NotADBError) as error:
            raise OutboxDamaged(f"The outbox {path} cannot be used ({error}). {_NEXT}") from None
        except apsw.Error as error:
            raise OutboxError(
                f"The outbox {path} cannot be used ({error}). Check that the disk is there, writable and not full."
            ) from None
        self._db = self._file.db
        if found[0] != device:
            raise OutboxError(
                f"The outbox {path} belongs to device {found[0]!r}, not {device!r}. "
                "Give each device its own `state` folder, or restore the name."
            )
        self.device: str = found[0]
        self.epoch: str = found[1]
        self._base: int = found[2]

    def close(self) -> None:
        """Close the database."""
        self._db.close()
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
            row = self._db.execute("SELECT number, place FROM outcome WHERE source_key = ?", (entry.source_key,)).fetchone()
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

    def find(self, source_key: str) -> Known | None:
        """Return the outcome recorded under a source key."""
        row = self._db.execute("SELECT number, pixel_hash, kind FROM outcome WHERE source_key = ?", (source_key,)).fetchone()
        return None if row is None else Known(self._seq(row[0]), row[1], row[2])

    def unreceipted(self, after: int, limit: int) -> list[Row]:
        """Return up to `limit` outcomes without a receipt and with number > `after`, in order.

        Raises:
            apsw.CorruptError: if the bytes of one are no longer those that were recorded.
        """
        rows = self._db.execute(
            "SELECT number, payload, crc FROM outcome WHERE receipted = 0 AND number > ? ORDER BY number LIMIT ?", (after, limit)
        )
        return [Row(number, _unchanged(payload, crc)) for number, payload, crc in rows]

    def payload(self, number: int) -> bytes | None:
        """Return the payload of one outcome that still has no receipt. Raises as `unreceipted`."""
        row = self._db.execute("SELECT payload, crc FROM outcome WHERE number = ? AND receipted = 0", (number,)).fetchone()
        return None if row is None else _unchanged(*row)

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

    def streams(self) -> list[Stream]:
        """Return every epoch, the present one last."""
        return [Stream._make(row) for row in self._db.execute("SELECT epoch, base, last_seq FROM stream ORDER BY base")]

    def last_seq(self) -> int:
        """Return the newest seq of the present epoch, 0 if it is new."""
        return int(self._file.one("SELECT last_seq FROM stream WHERE base = ?", self._base)[0])

    def waiting(self) -> int:
        """Return how many outcomes have no receipt."""
        return int(self._file.one("SELECT count(*) FROM outcome WHERE receipted = 0")[0])

    def lowest_unreceipted(self, stream: Stream | None = None) -> int:
        """Return the first seq of an epoch (the present one) without a receipt; its last seq + 1 when all have one."""
        stream = stream or self.streams()[-1]
        span = (stream.base + 1, stream.base + stream.last_seq)
        row = self._file.one("SELECT min(number) FROM outcome WHERE receipted = 0 AND number BETWEEN ? AND ?", *span)
        return stream.last_seq + 1 if row[0] is None else int(row[0]) - stream.base

    def raise_if_damaged(self) -> None:
        """End the use of an outbox that another process has found damaged.

        Raises:
            OutboxDamaged: if it is so.
        """
        if damage_note(self._path).exists():
            raise OutboxDamaged(f"The outbox was found damaged. {_NEXT}")

    def waiting_bytes(self) -> int:
        """Return how many bytes the payloads without a receipt have together."""
        return int(self._file.one("SELECT coalesce(sum(length(payload)), 0) FROM outcome WHERE receipted = 0")[0])

    def data_version(self) -> int:
        """Return a number that changes when another process has committed."""
        return int(self._file.one("PRAGMA data_version")[0])

    def listing(self, limit: int, *, waiting_only: bool = False) -> list[dict[str, Any]]:
        """Return the newest outcomes as plain values, for people and scripts on the device."""
        rows = self._db.execute(_LISTING + "WHERE receipted <= ? ORDER BY number DESC LIMIT ?", (0 if waiting_only else 1, limit))
        return [dict(zip(_LISTED, row, strict=True)) for row in rows]

    def row(self, number: int) -> dict[str, Any] | None:
        """Return one outcome as `listing` does."""
        rows = self._db.execute(_LISTING + "WHERE number = ?", (number,))
        return next((dict(zip(_LISTED, row, strict=True)) for row in rows), None)

    def number_of_place(self, intake_id: str) -> int | None:
        """Return in which outcome the intake ended whose file is kept under this name, without its suffix."""
        row = self._db.execute(
            "SELECT number FROM (SELECT number, place FROM outcome UNION ALL SELECT number, place FROM repeat) WHERE place LIKE ?",
            (f"{intake_id}%",),
        ).fetchone()
        return None if row is None else int(str(row[0]))

    def voided(self) -> set[tuple[str, int]]:
        """Return the (epoch, seq) of all outcomes that were taken back."""
        return {(str(epoch), int(str(seq))) for epoch, seq in self._db.execute(_VOIDED)}

    def seq_of_files(self) -> dict[str, int]:
        """Return the seq in which each file ended that is still remembered, by the sender's name for it."""
        rows = list(
            self._db.execute("SELECT original_name, number FROM repeat UNION ALL SELECT original_name, number FROM outcome")
        )
        return {str(name): self._seq(int(str(number))) for name, number in rows}

    def check_integrity(self) -> str:
        """Return "ok", or what SQLite found wrong."""
        return str(self._file.one("PRAGMA quick_check(1)")[0])

    def _seq(self, number: int) -> int:
        if number > self._base:
            return number - self._base
        return number - max(stream.base for stream in self.streams() if stream.base < number)

    def _remove(self, numbers: list[int]) -> int:
        if numbers:
            self._file.each("DELETE FROM outcome WHERE number = ?", numbers)
            with self._file.transaction():
                self._db.execute("DELETE FROM repeat WHERE number NOT IN (SELECT number FROM outcome)")
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()  # so that `outbox_bytes` sees the room
        return len(numbers)


def _unchanged(payload: Any, crc: Any) -> bytes:
    if zlib.crc32(payload) != crc:
        raise apsw.CorruptError("an outcome is no longer what was recorded")
    return bytes(payload)
