"""Which intake is which: a machine's retry is the outcome that it has, and what was corrected or only looks the same is another.

A DICOM object that comes again under its SOP Instance UID is a retry if its pixels are the same and its header says the same of the
patient as the last time. With other pixels it is another picture that claims the UID. With another patient, age or view it was
corrected at the console, also back to what it said before: it is answered anew, and what was answered before is taken back. The
very bytes of an earlier one are a machine's late retry of that one.

What has no pixels, because it was refused or could not be read, cannot be compared: it is a retry if its header says the same of
the patient as one without pixels before it, else an outcome of its own, and it takes nothing back. A picture that comes after it
is answered like a first one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edge.contract.reasons import CORRECTED, REUSED
from edge.infer.outcomes import OutcomeWriter, Picture
from edge.intake.spool import Intake
from edge.outbox.reader import Known
from edge.outbox.writer import Outbox
from edge.pixels.decoder_protocol import Answer, Ready


@dataclass(frozen=True)
class Identity:
    """kept: the name under which its file and what the page shows are kept. replaces: outcomes that it takes back, of any epoch.

    again: of a retry, that name of the outcome that it has already.
    """

    picture: Picture
    kept: str
    quality: tuple[str, ...] = ()
    replaces: tuple[Known, ...] = ()
    again: str = ""


def nth_source(uid: str, corrections: int) -> str:
    """Return the unkeyed source key of an object after so many corrections."""
    return f"sop:{uid}:corrected {corrections}" if corrections else f"sop:{uid}"


def reused_source(uid: str, digest: str) -> str:
    """Return the unkeyed source key of another picture under a UID. digest: SHA-256 of its file."""
    return f"sop:{uid}:{digest}"


def file_source(digest: str, intake_id: str) -> str:
    """Return the unkeyed source key of a file without a UID; see `reused_source`."""
    return f"file:{digest}:{intake_id}"


def answers_to(uid: str, find: Callable[[str], Known | None]) -> Iterator[tuple[str, Known]]:
    """Yield (source, outcome) of an object and of its corrections. `find` returns the outcome of a source."""
    for corrections in itertools.count():
        source = nth_source(uid, corrections)
        if (known := find(source)) is None:
            return
        yield source, known


@dataclass(frozen=True)
class Identifier:
    """Of one device in one epoch."""

    outbox: Outbox
    writer: OutcomeWriter

    def of(self, intake: Intake, answer: Answer, digest: str) -> Identity:
        """Return what identifies an intake. digest: SHA-256 of its bytes, 64 hex digits."""
        pixels = answer.pixel_digest if isinstance(answer, Ready) else None
        uid = answer.headers.sop_instance_uid
        if uid is None:
            return Identity(Picture(file_source(digest, intake.id), answer.headers, pixels), intake.id)

        def picture(source: str) -> Picture:
            return Picture(source, answer.headers, pixels)

        answers = dict(answers_to(uid, self._find))
        hashes = {pixel_hash for _, pixel_hash in self.writer.marks(picture(""))}
        alike = {source: known for source, known in answers.items() if known.pixel_hash in hashes}
        if not alike and not any(known.pixel_hash for known in answers.values()):
            return Identity(picture(nth_source(uid, len(answers))), self._kept(intake, digest, None))
        if pixels is None:
            alike = {source: known for source, known in alike.items() if not self.writer.differs(known.payload, answer.headers)}
        if not alike:
            reused = reused_source(uid, digest)
            return Identity(picture(reused), self._kept(intake, digest, self._find(reused)), (REUSED,))
        number = self.outbox.number_of_place(intake.id)
        again = next((source for source, known in alike.items() if known.number == number), None)
        last = max(alike, key=lambda source: alike[source].number)
        if again is None and not self.writer.differs(alike[last].payload, answer.headers):
            again = last
        if again is not None:
            known = alike[again]
            return Identity(picture(again), self._kept(intake, digest, known), again=Path(known.place).stem)
        corrected = picture(nth_source(uid, len(answers)))
        return Identity(corrected, self._kept(intake, digest, None), (CORRECTED,), tuple(alike.values()))

    def _find(self, source: str) -> Known | None:
        found = (self.outbox.find(source_key) for source_key, _ in self.writer.marks(Picture(source)))
        return next(filter(None, found), None)

    def _kept(self, intake: Intake, digest: str, known: Known | None) -> str:
        """Return the intake's own name, unless an outcome other than its own has it: then one made of its bytes."""
        number = self.outbox.number_of_place(intake.id)
        own = known is not None and (number == known.number or Path(known.place).stem == intake.id)
        return intake.id if number is None or own else digest
