"""Which outcome the PACS is to be told of next, and what of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.config import Decode, Pacs
from edge.contract.codec import recorded_outcome
from edge.contract.messages import AnyOutcome, Failure, Refusal, Result, Void
from edge.infer.local import LocalFacts, LocalStore
from edge.outbox.reader import OutboxReader, Stream
from edge.pacs.cursor import Place, PutOff
from edge.pacs.orders import PICTURE, REPORT, Order, kinds_of


@dataclass(frozen=True)
class Next:
    """The next outcome. order: None where there is nothing to tell. gone: how many are no longer there. put_off: what it was."""

    epoch: str
    seq: int
    order: Order | None
    gone: int = 0
    put_off: PutOff | None = None


class Waiting:
    """Finds what the PACS was not told of yet."""

    def __init__(self, state: Path, link: Pacs, limits: Decode, local: LocalStore) -> None:
        self._state = state
        self._link = link
        self._limits = limits
        self._local = local

    def next(self, outbox: OutboxReader, place: Place) -> Next | None:
        """Return the first outcome after `place`, in the order of their numbers; None if there is none. Raises apsw.Error."""
        for stream in outbox.streams():
            through = place.through.get(stream.epoch, 0)
            for seq in range(through + 1, stream.last_seq + 1):
                row = outbox.row(stream.base + seq)
                if row is not None:
                    return Next(stream.epoch, seq, self._order(outbox, stream, row, place), seq - through - 1)
            if through < stream.last_seq:  # nothing of it is left
                return Next(stream.epoch, stream.last_seq, None, stream.last_seq - through)
        return None

    def again(self, outbox: OutboxReader, late: PutOff) -> Next:
        """Return an outcome that was put off, as it is now. Raises apsw.Error."""
        stream = next((stream for stream in outbox.streams() if stream.epoch == late.epoch), None)
        row = None if stream is None else outbox.row(stream.base + late.seq)
        if stream is None or row is None:
            return Next(late.epoch, late.seq, None, gone=1, put_off=late)
        return Next(late.epoch, late.seq, self._order(outbox, stream, row, Place()), put_off=late)

    def _order(self, outbox: OutboxReader, stream: Stream, row: dict[str, Any], place: Place) -> Order | None:
        outcome = recorded_outcome(row["payload"])
        about, voided = row, b""
        if isinstance(outcome, Void):
            earlier = outbox.row(stream.base + outcome.voids)
            if earlier is None or not self._is_told(recorded_outcome(earlier["payload"])):
                return None
            about, voided = earlier, bytes(earlier["payload"])
        elif not self._is_told(outcome) or (stream.epoch, row["number"] - stream.base) in outbox.voided():
            return None  # what is known to be wrong is not sent any more
        kinds = tuple(kind for kind in kinds_of(self._link) if kind not in place.dropped)
        if not isinstance(outcome, Result):
            kinds = tuple(kind for kind in kinds if kind == REPORT)
        film = self._film(str(about["place"]))
        if film is None:
            kinds = tuple(kind for kind in kinds if kind != PICTURE)
        facts = self._facts(str(about["place"]))
        if not kinds or (not facts.study and film is None):
            return None
        return Order(
            link=self._link,
            outcome=bytes(row["payload"]),
            voided=voided,
            header=facts.study,
            film=str(film or ""),
            heat=facts.heat,
            kinds=kinds,
            max_bytes=self._limits.max_bytes,
            max_pixels=self._limits.max_pixels,
        )

    def _is_told(self, outcome: AnyOutcome | None) -> bool:
        """Whether the PACS hears of an outcome that was not taken back: not of a test film, nor of what the clinic is not shown."""
        if outcome is None or outcome.test:
            return False
        if isinstance(outcome, Refusal | Failure):
            return self._link.refusals
        return isinstance(outcome, Result) and outcome.shown

    def _film(self, name: str) -> Path | None:
        """Return the file of an intake if it is still there and is DICOM."""
        found = (self._state / folder / name for folder in ("done", "aside"))
        return next((path for path in found if name and _is_dicom(path)), None)

    def _facts(self, name: str) -> LocalFacts:
        stem = Path(name).stem
        return self._local.read(stem) if stem else LocalFacts()


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False
