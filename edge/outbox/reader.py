"""What is asked of the outbox without changing it: by `relay`, by the pages, by people. See `edge.outbox.writer`."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from edge.contract.codec import recorded_outcome
from edge.contract.seqset import SeqSet
from edge.errors import OutboxDamaged, OutboxError
from edge.outbox.file import OutboxFile, damage_note
from edge.outbox.size import RESULTS_BYTES

_LISTED = ("number", "kind", "receipted", "quarantined", "original_name", "place", "payload")
_ANY = 2**63 - 1
_LISTING = "SELECT number, kind, receipted, quarantined, original_name, place, payload FROM outcome "
_VOIDED = (  # one that the disk has spoilt since no longer says what it takes back
    "SELECT payload ->> '$.epoch', payload ->> '$.voids' "
    "FROM (SELECT CAST(payload AS TEXT) AS payload FROM outcome WHERE kind = 'void') "
    "WHERE CASE WHEN json_valid(payload) THEN "
    "payload ->> '$.epoch' IN (SELECT epoch FROM stream) AND typeof(payload ->> '$.voids') = 'integer' END"
)
_TYPICALITIES = (  # of films of patients; one that the disk has spoilt since is no reason to stop
    "SELECT number, source_key, payload ->> '$.typicality' "
    "FROM (SELECT number, source_key, CAST(payload AS TEXT) AS payload FROM outcome WHERE kind = 'result' AND number > ?) "
    "WHERE CASE WHEN json_valid(payload) THEN coalesce(payload ->> '$.test', 0) = 0 "
    "AND typeof(payload ->> '$.typicality') IN ('real', 'integer', 'null') END ORDER BY number"
)
_NEXT = "The next start of `cxr-edge infer` saves what it holds."


class Row(NamedTuple):
    """One outcome as it will be sent."""

    number: int
    payload: bytes


@dataclass(frozen=True)
class Known:
    """An outcome that is already recorded under a source key. number: in this outbox; epoch, seq: as the centre knows it."""

    number: int
    epoch: str
    seq: int
    pixel_hash: str | None
    payload: bytes
    place: str


class Stream(NamedTuple):
    """One epoch of this outbox: its outcomes have the numbers base + 1 to base + last_seq."""

    epoch: str
    base: int
    last_seq: int

    def numbers(self, held: SeqSet) -> SeqSet:
        """Return the numbers of those seqs of `held` that this epoch has given."""
        ranges = [(first, min(last, self.last_seq)) for first, last in [(1, held.through), *held.ranges]]
        return SeqSet(0, [(self.base + first, self.base + last) for first, last in ranges if first <= last])


def epoch_and_seq(streams: Sequence[Stream], number: int) -> tuple[str, int]:
    """Return which outcome a number is, for one whose payload does not say it any more."""
    stream = next(stream for stream in reversed(streams) if stream.base < number)
    return stream.epoch, number - stream.base


class OutboxReader:
    """One device's outbox, as far as it is read. Not for several threads."""

    def __init__(self, path: Path, device: str, *, read_only: bool = True, results_bytes: int = RESULTS_BYTES) -> None:
        """Open the database.

        `Outbox` alone opens it for writing, which makes it (with a new epoch) if it is not there. `results_bytes`: what the
        database and its log may take together; at least 32 MiB.

        Raises:
            OutboxDamaged: if it is damaged.
            OutboxError: if it is not there, cannot be opened, or belongs to another device.
        """
        self._path = path
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

    @property
    def closed_before(self) -> int:
        """The last number of the closed epochs, 0 if there are none."""
        return self._base

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def find(self, source_key: str) -> Known | None:
        """Return the outcome recorded under a source key."""
        query = "SELECT number, pixel_hash, payload, place FROM outcome WHERE source_key = ?"
        row = self._db.execute(query, (source_key,)).fetchone()
        if row is None:
            return None
        return Known(row[0], *self._name(row[0]), *row[1:])

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

    def listing(self, limit: int, *, waiting_only: bool = False, before: int | None = None) -> list[dict[str, Any]]:
        """Return the newest outcomes (with number < `before`) as plain values, for people and scripts on the device."""
        which = _LISTING + "WHERE receipted <= ? AND number < ? ORDER BY number DESC LIMIT ?"
        rows = self._db.execute(which, (0 if waiting_only else 1, before or _ANY, limit))
        return [dict(zip(_LISTED, row, strict=True)) for row in rows]

    def row(self, number: int) -> dict[str, Any] | None:
        """Return one outcome as `listing` does."""
        rows = self._db.execute(_LISTING + "WHERE number = ?", (number,))
        return next((dict(zip(_LISTED, row, strict=True)) for row in rows), None)

    def number_of_place(self, intake_id: str) -> int | None:
        """Return in which outcome the intake ended whose file is kept under this name, without its suffix."""
        row = self._db.execute(
            "SELECT number FROM (SELECT number, place FROM outcome UNION ALL SELECT number, place FROM repeat) "
            "WHERE place BETWEEN ? AND ?",
            (intake_id, intake_id + chr(0x10FFFF)),
        ).fetchone()
        return None if row is None else int(str(row[0]))

    def voided(self) -> set[tuple[str, int]]:
        """Return the (epoch, seq) of all outcomes that were taken back."""
        return {(str(epoch), int(str(seq))) for epoch, seq in self._db.execute(_VOIDED)}

    def is_test(self, seq: int) -> bool:
        """Return whether an outcome of the present epoch is of a test film; False where it is no longer here."""
        row = self.row(self._base + seq)
        outcome = None if row is None else recorded_outcome(row["payload"])
        return outcome is not None and outcome.test

    def typicalities(self, after: int) -> list[tuple[int, str, float | None]]:
        """Return (number, source key, typicality) of the results with number > `after`, in order."""
        found = self._db.execute(_TYPICALITIES, (after,))
        return [(int(str(number)), str(key), None if value is None else float(str(value))) for number, key, value in found]

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
        return self._name(number)[1]

    def _name(self, number: int) -> tuple[str, int]:
        """See `epoch_and_seq`; most are of the present epoch."""
        return (self.epoch, number - self._base) if number > self._base else epoch_and_seq(self.streams(), number)


def _unchanged(payload: Any, crc: Any) -> bytes:
    if zlib.crc32(payload) != crc:
        raise apsw.CorruptError("an outcome is no longer what was recorded")
    return bytes(payload)
