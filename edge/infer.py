"""Spool -> decode -> classify -> gate -> decide -> outbox: every intake ends in exactly one committed outcome.

The order that makes it safe: the file is forced to the disk (while the child decodes it), then the outcome
is committed, then the file leaves the spool. A crash at any point repeats at most the work, never the outcome, because the
outbox knows the source key.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from inotify_simple import INotify, flags

from edge.bundle import Bundle
from edge.classify import Scores
from edge.decide import Decision
from edge.decoder_protocol import Answer, NotReady, Ready
from edge.errors import OutboxFull, Refused
from edge.lifecycle import Stop
from edge.local import Heat, LocalFacts, LocalStore
from edge.names import printable
from edge.outbox import Entry, Outbox
from edge.outcomes import OutcomeWriter, Picture
from edge.requests import Requests, VoidRequest
from edge.spool import Intake, Spool

log = logging.getLogger(__name__)

T = TypeVar("T")

_RESCAN_S = 5.0
_FULL = (errno.ENOSPC, errno.EDQUOT)
MAX_TRIALS = 3
_UNREAD = "unread"
"""In the place of the digest of a file that cannot be read."""


class Decodes(Protocol):
    """What turns a file into a network input; the real one is `edge.decoder.Decoder`."""

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
        threshold: float | None,
    ) -> None:
        self._spool = spool
        self._decoder = decoder
        self._bundle = bundle
        self._outbox = outbox
        self._writer = writer
        self._local = local
        self._threshold = threshold

    def process(self, intake: Intake) -> int:
        """Bring one intake to its outcome; return the seq.

        Raises:
            OutboxFull: if the outbox has no room at present (the file then stays in the spool).
            apsw.Error: if the outbox is broken (likewise).
            OSError: if the disk fails (likewise).
        """
        started = time.perf_counter()
        answer, digest = self._decoder.decode_while(intake.path, lambda: self._digest(intake))
        picture, quality = self._picture(intake, answer, digest)
        if isinstance(answer, NotReady):
            return self._commit_without_answer(intake, picture, answer)
        try:
            decision, heat, timings = self._classify(answer)
        except Refused as refused:
            return self._commit_without_answer(intake, picture, NotReady(True, refused.reason, refused.detail))
        self._keep_local(intake, picture, heat)
        timings["total"] = (time.perf_counter() - started) * 1e3
        return self._commit(intake, picture, "result", self._writer.result(picture, decision, quality, timings))

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
        except OSError as error:  # a bad sector ends every trial, and must not hold up those behind it
            digest, answer = _UNREAD, NotReady(False, "internal_error", f"gave up after {MAX_TRIALS} trials: {error.strerror}")
        return self._commit_without_answer(intake, Picture(f"file:{digest}:{intake.id}"), answer)

    def void(self, request: VoidRequest) -> int | None:
        """Take back an outcome, once however often it is asked; return the seq, None if there is no such outcome here."""
        if request.epoch != self._outbox.epoch or request.voids > self._outbox.last_seq():
            return None
        picture = Picture(f"void:{request.epoch}:{request.voids}")
        payload = self._writer.void(picture, request.voids, request.reason)
        seq, _ = self._outbox.record(Entry(source_key=self._writer.source_key(picture), kind="void", payload=payload))
        return seq

    def _keep_local(self, intake: Intake, picture: Picture, heat: Heat | None) -> None:
        """Keep what the clinic's page shows. The outcome counts more: a disk that does not take this does not hold it up."""
        headers = picture.headers
        facts = LocalFacts(patient_name=headers.patient_name, patient_id=headers.patient_id, heat=heat)
        try:
            self._local.write(intake.id, facts)
        except OSError as error:
            log.warning("what the page shows beside an answer cannot be kept (%s)", error.strerror)

    def _digest(self, intake: Intake) -> str:
        """Force the file to the disk; return its SHA-256."""
        try:
            return self._spool.make_durable(intake)
        except PermissionError:
            return _UNREAD  # it is moved aside with a reason; what this process may not read it cannot force either

    def _commit_without_answer(self, intake: Intake, picture: Picture, answer: NotReady) -> int:
        self._keep_local(intake, picture, None)
        log.warning("no answer: %s %s", answer.reason, answer.detail)
        if answer.refused:
            return self._commit(intake, picture, "refusal", self._writer.refusal(picture, answer.reason))
        return self._commit(intake, picture, "failure", self._writer.failure(picture, answer.reason))

    def _commit(self, intake: Intake, picture: Picture, kind: str, payload: Callable[[int], bytes]) -> int:
        answered = kind == "result"
        entry = Entry(
            source_key=self._writer.source_key(picture),
            kind=kind,
            payload=payload,
            pixel_hash=self._writer.pixel_hash(picture),
            original_name=printable(intake.original_name),
            place=self._spool.place(intake, answered=answered).name,
        )
        seq, new = self._outbox.record(entry)
        self._spool.settle(intake, answered=answered)
        log.info("seq %d: %s%s", seq, kind, "" if new else ", recorded before")
        return seq

    def _classify(self, answer: Ready) -> tuple[Decision, Heat | None, dict[str, float]]:
        side = self._bundle.manifest.input_side
        began = time.perf_counter()
        scores = self._bundle.scores(np.frombuffer(answer.pixels, np.uint8).reshape(side, side), answer.headers)
        decision = self._bundle.answer(scores, self._threshold)
        spent = (time.perf_counter() - began) * 1e3
        heat = _heat(scores, self._bundle.manifest.classes.index(decision.label))
        return decision, heat, {"decode": answer.decode_ms, "preprocess": answer.preprocess_ms, "classify": spent}

    def _picture(self, intake: Intake, answer: Answer, digest: str) -> tuple[Picture, list[str]]:
        """Return what identifies the intake, and quality codes that follow from it."""
        pixels = answer.pixel_digest if isinstance(answer, Ready) else None
        uid = answer.headers.sop_instance_uid
        if uid is None:
            return Picture(f"file:{digest}:{intake.id}", answer.headers, pixels), []
        picture = Picture(f"sop:{uid}", answer.headers, pixels)
        known = self._outbox.find(self._writer.source_key(picture))
        if known is None or known.pixel_hash == self._writer.pixel_hash(picture):
            return picture, []
        # Two different pictures that claim one SOP Instance UID are no retry: the second gets an outcome of its own.
        return Picture(f"sop:{uid}:{digest}", answer.headers, pixels), ["uid_reused"]


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


class SpoolWatch:
    """Waits for files in the spool."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._notify = INotify()
        self._notify.add_watch(spool.incoming, flags.MOVED_TO | flags.ONLYDIR)

    def close(self) -> None:
        """Stop listening."""
        self._notify.close()

    def wait(self, timeout_s: float) -> list[Intake]:
        """Return the files that came in, or nothing after `timeout_s` seconds."""
        return [self._spool.intake(event.name) for event in self._notify.read(timeout=int(timeout_s * 1e3)) if "~" in event.name]


class Trials:
    """Remembers which intake is in hand, so that one that ends the process each time is given up and not tried for ever.

    A few bytes written without fsync: a power cut is no fault of the picture and need not count. They overwrite the last
    ones in place, because closing a file that was truncated makes ext4 write it out at once, which takes a millisecond.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        intake_id, _, count = os.pread(self._file, 200, 0).partition(b"\n")[0].decode("ascii", "replace").partition(" ")
        self._last, self._count = intake_id, int(count) if count.strip().isdigit() else 0

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def begin(self, intake_id: str) -> int:
        """Note that work on an intake begins; return how many times in a row it has, this one included."""
        self._count = self._count + 1 if intake_id == self._last else 1
        self._last = intake_id
        os.pwrite(self._file, f"{intake_id} {self._count:4d}\n".encode("ascii"), 0)
        return self._count

    def excuse(self) -> None:
        """The intake in hand is not to blame for what happened: do not count this time."""
        self._count = 0
        os.pwrite(self._file, f"{self._last} {self._count:4d}\n".encode("ascii"), 0)


def infer_forever(
    inference: Inference, spool: Spool, trials: Trials, stop: Stop, requests: Requests, tidy: Callable[[], object]
) -> None:
    """Process what is in the spool, then what comes, until told to stop; between them, what was asked through the page.

    `tidy` is called every few seconds and removes what is kept no longer. Names of files never go to the log. While outbox or disk
    are full, everything stays where it is and is tried again.
    """
    watch = SpoolWatch(spool)
    try:
        _process_all(watch, inference, spool, trials, stop, requests, tidy)
    finally:
        watch.close()


def _process_all(
    watch: SpoolWatch,
    inference: Inference,
    spool: Spool,
    trials: Trials,
    stop: Stop,
    requests: Requests,
    tidy: Callable[[], object],
) -> None:
    next_scan = 0.0
    full = False
    while not stop.is_set():
        due = time.monotonic() >= next_scan
        intakes = spool.pending() if due else watch.wait(min(_RESCAN_S, 0.5))
        if due:
            next_scan = time.monotonic() + _RESCAN_S
            inference.raise_if_damaged()
        work = [partial(_settle, inference, trials, intake) for intake in intakes]
        for step in [*work, partial(do_requests, inference, requests)]:
            if stop.is_set():
                return
            try:
                done = step()
            except (OutboxFull, OSError) as error:
                if isinstance(error, OSError) and error.errno not in _FULL:
                    raise
                trials.excuse()
                if not full:
                    log.error("Nothing can be recorded at present, and the X-rays wait in the spool (%s)", error)
                full = True
                break  # the next scan finds the others
            if full and done:
                log.info("there is room again")
                full = False
        if due:
            tidy()


def _settle(inference: Inference, trials: Trials, intake: Intake) -> bool:
    outcome = inference.give_up if trials.begin(intake.id) > MAX_TRIALS else inference.process
    try:
        outcome(intake)
    except FileNotFoundError:
        if intake.path.exists():
            raise
        # Else it was an event for what the scan has already settled.
    return True


def do_requests(inference: Inference, requests: Requests) -> bool:
    """Do what was asked through the page; return whether anything was."""
    asked = requests.pending()
    for path, request in asked:
        seq = None if request is None else inference.void(request)
        log.info("seq %d: void", seq) if seq is not None else log.warning("a request of the page makes no sense here")
        path.unlink(missing_ok=True)
    return bool(asked)
