"""Spool -> decode -> classify -> gate -> decide -> outbox: every intake ends in exactly one committed outcome.

The order that makes it safe: the file is forced to the disk (while the child decodes it), then the outcome
is committed, then the file leaves the spool. A crash at any point repeats at most the work, never the outcome, because the
outbox knows the source key.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, TypeVar

import numpy as np
from msgspec.structs import replace

from edge.commissioning.silence import Silence
from edge.contract.reasons import CORRECTED
from edge.errors import Refused
from edge.infer.identity import Identifier, Identity, file_source
from edge.infer.local import Heat, LocalFacts, LocalStore
from edge.infer.outcomes import OutcomeWriter, Picture
from edge.intake.spool import Intake, Spool
from edge.names import printable
from edge.network.bundle import Bundle
from edge.network.classify import Scores
from edge.network.decide import Decision
from edge.outbox.reader import Known
from edge.outbox.writer import Entry, Outbox
from edge.pixels.decoder_protocol import Answer, NotReady, Ready
from edge.pixels.headers import NO_HEADERS
from edge.requests import AnyRequest, VoidRequest

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_TRIALS = 3
_UNREAD = "unread"
"""In the place of the digest of a file that cannot be read."""


class Decodes(Protocol):
    """What turns a file into a network input; the real one is `edge.pixels.decoder.Decoder`."""

    def decode_while(self, path: Path, work: Callable[[], T]) -> tuple[Answer, T]:
        """Do `work` while the file is decoded; return the network's input, or why there is none, and what `work` returned."""
        ...


class Inference:
    """Takes intakes one after the other from the spool to the outbox."""

    def __init__(
        self,
        spool: Spool,
        decoder: Decodes,
        bundle: Bundle,
        outbox: Outbox,
        writer: OutcomeWriter,
        local: LocalStore,
        silence: Silence,
        committed: Callable[[Intake, str], object] = lambda intake, place: None,
        count: Callable[[str, str, Mapping[str, float]], object] = lambda kind, reason, timings_ms: None,
        unmet: Callable[[VoidRequest], object] = lambda request: None,
    ) -> None:
        """Wire one up.

        `committed` is told of each intake once its outcome is in the outbox, before its file leaves the spool; `count` of each
        new outcome of a patient: its kind, why there is no answer, how long it took; `unmet` of an outcome that was corrected and
        is of a closed epoch, see `edge.requests.Requests.keep_unmet`.
        """
        self._spool = spool
        self._decoder = decoder
        self._bundle = bundle
        self._outbox = outbox
        self._writer = writer
        self._local = local
        self._silence = silence
        self._committed = committed
        self._identifier = Identifier(outbox, writer)
        self._count = count
        self._unmet = unmet

    def process(self, intake: Intake) -> int:
        """Bring one intake to its outcome; return the seq.

        Raises:
            edge.errors.OutboxFull: if the outbox has no room at present (the file then stays in the spool).
            apsw.Error: if the outbox is broken (likewise).
            OSError: if the disk fails (likewise).
        """
        started = time.perf_counter()
        answer, digest = self._decoder.decode_while(intake.path, lambda: self._digest(intake))
        identity = self._identifier.of(intake, answer, digest)
        for known in identity.replaces:
            self._replace(known)  # before the new one: a crash between the two repeats this, and does not leave it out
        if identity.replaces:
            self._silence.note_taken_back()
        if isinstance(answer, NotReady):
            return self._commit_without_answer(intake, identity, answer)
        try:
            decision, heat, timings = self._classify(answer)
        except Refused as refused:
            return self._commit_without_answer(intake, identity, NotReady(True, refused.reason, refused.detail))
        self._keep_local(identity, heat)
        timings["total"] = (time.perf_counter() - started) * 1e3
        quality = list(identity.quality)
        result = self._writer.result(identity.picture, decision, heat, quality, timings, shown=self._silence.shown)
        seq = self._commit(intake, identity, "result", result, timings_ms=timings)
        self._silence.catch_up()
        return seq

    def raise_if_damaged(self) -> None:
        """End the work if another process has found the outbox damaged.

        Raises:
            OutboxDamaged: if it is so.
        """
        self._outbox.raise_if_damaged()

    def give_up(self, intake: Intake) -> int:
        """Record that an intake has ended this process time and again; return the seq."""
        answer = NotReady(False, "internal_error", f"gave up after {MAX_TRIALS} trials")
        try:
            digest = self._digest(intake)
        except FileNotFoundError:
            raise  # an event for what the scan has already settled
        except OSError as error:  # a bad sector ends every trial, and must not hold up those behind it
            digest, answer = _UNREAD, NotReady(False, "internal_error", f"gave up after {MAX_TRIALS} trials: {error.strerror}")
        identity = Identity(Picture(file_source(digest, intake.id)), intake.id)
        _say(answer)
        return self._commit(intake, identity, "failure", self._writer.failure(identity.picture, answer.reason), answer.reason)

    def do(self, request: AnyRequest) -> str | None:
        """Do what was asked; return a line for the log, None if it makes no sense here."""
        if not isinstance(request, VoidRequest):
            return self._silence.do(request)
        seq = self.void(request)
        self._silence.note_taken_back()
        return None if seq is None else f"seq {seq}: void"

    def void(self, request: VoidRequest) -> int | None:
        """Take back an outcome, once however often it is asked; return the seq, None if there is no such outcome here."""
        if request.epoch != self._outbox.epoch or request.voids > self._outbox.last_seq():
            return None
        return self._take_back(request.voids, request.reason)

    def _replace(self, known: Known) -> None:
        if known.number > self._outbox.closed_before:
            self._take_back(known.seq, CORRECTED)
        else:
            self._unmet(VoidRequest(epoch=known.epoch, voids=known.seq, reason=CORRECTED))

    def _take_back(self, voids: int, reason: str) -> int:
        picture = Picture(f"void:{self._outbox.epoch}:{voids}")
        payload = self._writer.void(picture, voids, reason, test=self._outbox.is_test(voids))
        earlier = self._writer.earlier_keys(picture)
        entry = Entry(source_key=self._writer.source_key(picture), kind="void", payload=payload, earlier_keys=earlier)
        seq, _ = self._outbox.record(entry)
        return seq

    def _keep_local(self, identity: Identity, heat: Heat | None) -> None:
        """Keep what the clinic's page shows. The outcome counts more: a disk that does not take this does not hold it up.

        What came again keeps the heat that it has: its first answer stands, and another network may have seen something else.
        """
        headers = identity.picture.headers
        facts = LocalFacts(patient_name=headers.patient_name, patient_id=headers.patient_id, heat=heat, study=headers.study)
        try:
            for name in dict.fromkeys((identity.kept, identity.again or identity.kept)):
                if self._outbox.number_of_place(name) is None:
                    self._local.write(name, facts)
                elif headers != NO_HEADERS:  # it could be read this time; perhaps with another spelling of the name
                    self._local.write(name, replace(facts, heat=self._local.read(name).heat))
        except OSError as error:
            log.warning("what the page shows beside an answer cannot be kept (%s)", error.strerror)

    def _digest(self, intake: Intake) -> str:
        """Force the file to the disk; return its SHA-256."""
        try:
            return self._spool.make_durable(intake)
        except PermissionError:
            return _UNREAD  # it is moved aside with a reason; what this process may not read it cannot force either

    def _commit_without_answer(self, intake: Intake, identity: Identity, answer: NotReady) -> int:
        self._keep_local(identity, None)
        _say(answer)
        if answer.refused:
            return self._commit(intake, identity, "refusal", self._writer.refusal(identity.picture, answer.reason), answer.reason)
        return self._commit(intake, identity, "failure", self._writer.failure(identity.picture, answer.reason), answer.reason)

    def _commit(
        self,
        intake: Intake,
        identity: Identity,
        kind: str,
        payload: Callable[[int], bytes],
        reason: str = "",
        timings_ms: Mapping[str, float] = MappingProxyType({}),
    ) -> int:
        picture = identity.picture
        place = self._spool.place(identity.kept, intake.original_name, answered=kind == "result")
        entry = Entry(
            source_key=self._writer.source_key(picture),
            kind=kind,
            payload=payload,
            pixel_hash=self._writer.pixel_hash(picture),
            original_name=printable(intake.original_name),
            place=place.rpartition("/")[2],
            earlier_keys=self._writer.earlier_keys(picture),
        )
        seq, new = self._outbox.record(entry)
        self._committed(intake, place)
        self._spool.settle(intake, place)
        if new and not self._writer.is_test(picture):
            self._count(kind, reason, timings_ms)
        fields = {"seq": seq, "kind": kind}
        log.info("seq %d: %s%s", seq, kind, "" if new else ", recorded before", extra={"event": "outcome", "fields": fields})
        return seq

    def _classify(self, answer: Ready) -> tuple[Decision, Heat | None, dict[str, float]]:
        side = self._bundle.manifest.input_side
        began = time.perf_counter()
        scores = self._bundle.scores(np.frombuffer(answer.pixels, np.uint8).reshape(side, side), answer.headers)
        decision = self._bundle.answer(scores, self._silence.threshold)
        spent = (time.perf_counter() - began) * 1e3
        heat = _heat(scores, self._bundle.manifest.classes.index(decision.label))
        return decision, heat, {"decode": answer.decode_ms, "preprocess": answer.preprocess_ms, "classify": spent}


def _say(answer: NotReady) -> None:
    # A kind of line of its own for each reason: of each, the first ones of a flood are told.
    extra = {"event": f"no_answer.{answer.reason}", "fields": {"reason": answer.reason}}
    log.warning("no answer: %s %s", answer.reason, answer.detail, extra=extra)


def _heat(scores: Scores, number: int) -> Heat | None:
    """Return what speaks for a class, as a share of where most does; None where nothing does."""
    if not scores.heat.size:
        return None
    positive = np.maximum(scores.heat[:, :, number], 0)
    most = float(positive.max())
    if most <= 0:
        return None
    rows, columns = positive.shape
    return Heat(rows, columns, np.rint(positive / most * 255).astype(np.uint8).tobytes())
