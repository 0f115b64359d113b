"""Whether the clinic is shown an answer, and by which threshold: what `infer` asks before each result, and what watches over it.

Silence comes at once, also when the disk cannot take the news of it; a release counts only once it is on the disk. The watch over
drift is a function of the outcomes since the device fell silent last, and is made anew from the outbox at each start.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from edge.commissioning.drift import Drift
from edge.commissioning.journal import Journal, journal_path, put_aside
from edge.commissioning.standing import (
    ELSE,
    UNDECIDED,
    Event,
    Reading,
    Released,
    Silenced,
    Standing,
    Why,
    Withdrawn,
    offered,
    shown_and_why,
    standing,
)
from edge.config import Commissioning
from edge.contract.codec import recorded_outcome
from edge.contract.messages import Result
from edge.errors import JournalDamaged
from edge.outbox.reader import OutboxReader
from edge.requests import ReadingRequest, ReleaseRequest, Requests, SilenceRequest

log = logging.getLogger(__name__)

_BARS = frozenset({"unfamiliar", "undecided"})
"""Reasons for which no threshold would have given an answer, see `edge.network.decide`."""
_TIE_DIGITS = 13


@dataclass(frozen=True)
class Site:
    """settings: device.toml's. bundle: see `edge.network.manifest.digest_of`. own: the bundle's threshold; fixed: device.toml's."""

    settings: Commissioning
    bundle: str
    own: float
    fixed: float | None = None


def open_silence(state: Path, site: Site, outbox: OutboxReader) -> Silence:
    """Open the journal of a device; a damaged one is put aside, and the device is silent.

    Raises:
        OSError: if the disk fails.
    """
    path, requests = journal_path(state), Requests(state)
    try:
        return Silence(Journal(path), site, outbox, requests)
    except JournalDamaged as error:
        log.error("%s", error)
        put_aside(path)
        return Silence(Journal(path), site, outbox, requests, "damaged")


class Silence:
    """Of one device, for its only writer."""

    def __init__(self, journal: Journal, site: Site, outbox: OutboxReader, requests: Requests, begins: Why = "new") -> None:
        """Take up where the journal ends. begins: why the device is silent if nothing is in the journal."""
        self._newest = 0
        self._journal = journal
        self._site = site
        self._outbox = outbox
        self._requests = requests
        self._owed: Silenced | None = None
        self._standing = standing(journal.events)
        if self._standing.began is None:
            self._fall_silent(begins)
        elif self._standing.began.bundle != site.bundle:
            self._fall_silent("model")
        else:
            self._watch_from(self._standing.began)
        self.catch_up()
        self.note_taken_back()  # a crash may have come before it was

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    @property
    def shown(self) -> bool:
        """Whether the clinic is to see the next answer."""
        return shown_and_why(self._standing, self._site.settings.readings)[0]

    @property
    def threshold(self) -> float | None:
        """What decides the next answer: device.toml before the choice of the release; None for the bundle's own."""
        return self._standing.threshold if self._site.fixed is None else self._site.fixed

    def catch_up(self) -> None:
        """Look at the results that have come since the last time; fall silent if they are of another kind."""
        if self._site.settings.readings == 0:
            return
        for number, key, typicality in self._outbox.typicalities(self._newest):
            self._newest = number
            if typicality is not None and self._drift.see(typicality, _tie(key)):
                self._fall_silent("drift")
                return
        if self._owed is not None:
            self._try_to_settle()

    def note_taken_back(self) -> None:
        """Readings of outcomes that were taken back, or are to be, count no more. What the disk does not take is noted later."""
        self._try_to_settle()

    def do(self, request: ReadingRequest | ReleaseRequest | SilenceRequest) -> str | None:
        """Do what was asked; return a line for the log, None if it makes no sense here.

        Raises:
            OSError: if the disk does not take it. Nothing has changed then, and it can be asked again.
        """
        self._settle()
        if isinstance(request, ReadingRequest):
            reading = self._reading(request)
            return None if reading is None else self._note(reading, "a local reading was recorded")
        if isinstance(request, ReleaseRequest):
            if not self._may_release(request):
                return None
            return self._note(Released(by=request.by, threshold=request.threshold), "released: answers are shown from here on")
        if self._site.settings.readings == 0:
            return None  # answers would be shown all the same
        if not self._standing.silent:
            self._fall_silent("by_hand")
            self._settle()
        return "answers are not shown, as asked"

    def _reading(self, request: ReadingRequest) -> Reading | None:
        """Return what is to be noted; None unless the outcome is an answer that nobody was shown, and has no reading yet.

        Nor is a test film read, or what was taken back: it says nothing of the patients here.
        """
        base = next((stream.base for stream in self._outbox.streams() if stream.epoch == request.epoch), None)
        row = None if base is None else self._outbox.row(base + request.seq)
        if row is None or not self._standing.asks_for(request.epoch, request.seq, self._outbox.epoch):
            return None
        outcome = recorded_outcome(row["payload"])
        if outcome is None or (outcome.epoch, outcome.seq) != (request.epoch, request.seq):
            return None
        if not isinstance(outcome, Result) or outcome.shown or request.label not in (*outcome.probabilities, UNDECIDED, ELSE):
            return None
        if outcome.test or (outcome.epoch, outcome.seq) in self._taken_back():
            return None
        return Reading(
            epoch=request.epoch,
            seq=request.seq,
            picture=outcome.pixel_hash,
            label=request.label,
            answer=outcome.label,
            chance=outcome.probabilities[outcome.label],
            barred=not _BARS.isdisjoint(outcome.quality),
        )

    def _may_release(self, request: ReleaseRequest) -> bool:
        allowed = request.threshold is None or (self._site.fixed is None and request.threshold in offered(self._site.own))
        return allowed and self._standing.may_be_released(self._site.settings.readings)

    def _note(self, event: Event, said: str) -> str:
        self._journal.append(event)
        self._standing = standing(self._journal.events)
        return said

    def _fall_silent(self, why: Why) -> None:
        began = Silenced(why=why, bundle=self._site.bundle, epoch=self._outbox.epoch, after=self._outbox.last_seq())
        self._owed = began
        self._standing = Standing(began=began, given=self._standing.given, withdrawn=self._standing.withdrawn)
        self._watch_from(began)
        if self._site.settings.readings > 0:  # else they are shown all the same
            log.warning("answers are not shown from here on: %s", why)
        self._try_to_settle()

    def _watch_from(self, began: Silenced) -> None:
        self._drift = Drift(self._site.settings.drift_once_in)
        self._newest = next((s.base + began.after for s in self._outbox.streams() if s.epoch == began.epoch), 0)

    def _try_to_settle(self) -> None:
        try:
            self._settle()
        except OSError as error:
            log.error("that no answer is shown, or a reading counts no more, cannot be recorded at present (%s)", error.strerror)

    def _settle(self) -> None:
        if self._owed is not None:
            self._journal.append(self._owed)
            self._owed = None
        for epoch, seq in sorted((self._taken_back() & self._standing.given.keys()) - self._standing.withdrawn):
            log.info("%s", self._note(Withdrawn(epoch=epoch, seq=seq), "a reading counts no more: its outcome was taken back"))

    def _taken_back(self) -> set[tuple[str, int]]:
        return self._requests.asked_voids() | self._outbox.voided()  # in this order: a request goes once its outcome is there


def _tie(source_key: str) -> float:
    """Return a number in (0, 1) that is as random as the key, which is an HMAC, and the same at each start."""
    return (int(source_key[:_TIE_DIGITS], 16) + 0.5) / float(16**_TIE_DIGITS)
