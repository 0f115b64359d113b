"""Which intake is which: a machine's retry is the outcome that it has, and what was corrected or only looks the same is another.

A DICOM object that comes again under its SOP Instance UID is a retry if its pixels are the same and its header says the same of the
patient. With other pixels it is another picture that claims the UID. With another patient, age or view it was corrected at the
console: it is answered anew, and what was answered before is taken back.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge.contract.reasons import CORRECTED, REUSED
from edge.decoder_protocol import Answer, Ready
from edge.outbox import Outbox
from edge.outcomes import OutcomeWriter, Picture
from edge.spool import Intake


@dataclass(frozen=True)
class Identity:
    """kept: the name under which its file and what the page shows are kept. replaces: seqs of this epoch that it takes back."""

    picture: Picture
    kept: str
    quality: tuple[str, ...] = ()
    replaces: tuple[int, ...] = ()


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
            return Identity(Picture(f"file:{digest}:{intake.id}", answer.headers, pixels), intake.id)
        picture = Picture(f"sop:{uid}", answer.headers, pixels)
        another = Picture(f"sop:{uid}:{digest}", answer.headers, pixels)
        for source_key, pixel_hash in self.writer.marks(picture):
            known = self.outbox.find(source_key)
            if known is None:
                continue
            kept = digest if self.outbox.number_of_place(intake.id) is not None else intake.id
            if known.pixel_hash != pixel_hash:
                return Identity(another, kept, (REUSED,))
            if pixel_hash is not None and self.writer.differs(known.payload, answer.headers):
                return Identity(another, kept, (CORRECTED,), self._earlier(uid, another))
        return Identity(picture, intake.id)

    def _earlier(self, uid: str, another: Picture) -> tuple[int, ...]:
        """Return the seqs of this object's outcomes: the first one, and corrections before this one; none for its own retry."""
        if any(self.outbox.find(source_key) for source_key, _ in self.writer.marks(another)):
            return ()
        found = []
        hashes = [pixel_hash for _, pixel_hash in self.writer.marks(another) if pixel_hash is not None]
        for seq, source_key, place in (row for pixel_hash in hashes for row in self.outbox.with_pixels(pixel_hash)):
            sources = (Picture(f"sop:{uid}"), Picture(f"sop:{uid}:{place.partition('.')[0]}"))
            of_this = {key for source in sources for key, _ in self.writer.marks(source)}
            if source_key in of_this:
                found.append(seq)
        return tuple(found)
