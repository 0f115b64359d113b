"""From the outbox and the local files to what the page shows of a study. Reads only; the words come from `edge.page.words`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edge.clock import Reading as Clock
from edge.clock import local_time, read_clock
from edge.commissioning.journal import read_standing
from edge.commissioning.standing import ELSE, UNDECIDED, Standing
from edge.contract.codec import recorded_outcome
from edge.contract.messages import AnyOutcome, Failure, Refusal, Result, Void
from edge.contract.reasons import CORRECTED, REUSED
from edge.infer.local import Heat, LocalFacts, LocalStore
from edge.outbox.reader import OutboxReader, Stream, epoch_and_seq
from edge.outbox.reading import Reading
from edge.page.when import moment
from edge.page.words import Words
from edge.requests import Requests

Tone = Literal["answer", "finding", "unsure", "silent", "problem", "void"]
Sent = Literal["yes", "no", "apart"]

_LISTED = 100
_SAID_IN_SILENCE = (REUSED, CORRECTED)
"""Codes that say nothing of the answer."""
_ONE_SIDED = 0.3
"""With a smaller share of the heat on one of two sides, the other is named alone."""


@dataclass(frozen=True)
class Bar:
    """One class. percent: 0 to 100. chosen: the likeliest."""

    name: str
    percent: int
    chosen: bool


@dataclass(frozen=True)
class Study:
    """One outcome as the clinic reads it. number: in this outbox; seq: in its epoch. picture: the file, if it is still there.

    time, day: in the clinic's own time, empty where they are not known. Of a silent answer nothing is here but that there is one.
    choices: what a reading of it may say, as (label, word); empty where none is asked for. reading: what was read, as a word; empty
    where nothing was.
    """

    number: int
    epoch: str
    seq: int
    intake_id: str
    tone: Tone
    headline: str
    notes: list[str]
    bars: list[Bar]
    place: str
    time: str
    day: str
    patient: str
    patient_id: str
    sent: Sent
    file: str
    model: str
    typicality: int | None
    picture: Path | None
    heat: Heat | None
    voided: bool
    may_void: bool
    choices: list[tuple[str, str]]
    reading: str


@dataclass(frozen=True)
class Day:
    """Some studies of one day, the newest first. day: as 2026-01-31; empty where it is not known."""

    day: str
    studies: list[Study]


@dataclass(frozen=True)
class Listing:
    """Studies, the newest first. earlier: the number before which there are more. today: whether these are of today alone."""

    days: list[Day]
    earlier: int | None
    today: bool


class Studies:
    """Of one device."""

    def __init__(self, state: Path, reading: Reading, local: LocalStore, requests: Requests) -> None:
        self._state = state
        self._reading = reading
        self._local = local
        self._requests = requests

    def list(self, words: Words, before: int | None = None) -> Listing:
        """Return the newest studies: those of today, where the clock can tell; those with number < `before`, where it is given."""
        now, standing = read_clock(), read_standing(self._state)
        with self._reading.open() as outbox:
            voided, rows = self._voided(outbox), outbox.listing(_LISTED + 1, before=before)
            streams = outbox.streams()
        present = local_time(now.wall)
        today = present.date().isoformat() if present is not None and now.synchronised and before is None else ""
        days: list[Day] = []
        earlier = int(rows[_LISTED - 1]["number"]) if len(rows) > _LISTED else None
        for row in rows[:_LISTED]:
            if row["kind"] == "void":
                continue
            study = self._study(row, words, voided, streams, now, standing)
            if study.day and study.day < today:
                earlier = study.number + 1
                break
            if not days or (study.day != days[-1].day and not today):
                days.append(Day(study.day, []))
            days[-1].studies.append(study)
        return Listing(days, earlier, bool(today))

    def one(self, number: int, words: Words) -> Study | None:
        """Return one study."""
        with self._reading.open() as outbox:
            row = outbox.row(number)
            if row is None:
                return None
            return self._study(row, words, self._voided(outbox), outbox.streams(), read_clock(), read_standing(self._state))

    def number_of(self, intake_id: str) -> int | None:
        """Return in which outcome an intake ended; None while it waits."""
        with self._reading.open() as outbox:
            return outbox.number_of_place(intake_id)

    def waiting(self) -> int:
        """Return how many outcomes have no receipt."""
        with self._reading.open() as outbox:
            return outbox.waiting()

    def _voided(self, outbox: OutboxReader) -> set[tuple[str, int]]:
        """What was taken back, and what was asked to be: until `infer` has done it nobody should rely on the answer either."""
        asked = self._requests.asked_voids()
        return asked | outbox.voided()  # in this order: a request goes once its outcome is there

    def _study(
        self,
        row: dict[str, Any],
        words: Words,
        all_voided: set[tuple[str, int]],
        streams: Sequence[Stream],
        now: Clock,
        standing: Standing,
    ) -> Study:
        outcome, present = recorded_outcome(row["payload"]), streams[-1].epoch
        name = epoch, seq = epoch_and_seq(streams, row["number"])
        answer = outcome if isinstance(outcome, Result) and outcome.shown else None
        silent = isinstance(outcome, Result) and not outcome.shown and not outcome.test
        asked = silent and standing.asks_for(epoch, seq, present)
        path = Path(str(row["place"]))
        facts = self._local.read(path.stem) if path.stem else LocalFacts()
        tone, headline, notes = _said(outcome, words)
        voided = name in all_voided
        if voided:
            tone, headline, notes = "void", words("study.void"), [words("study.voided")]
        recorded = None if outcome is None else moment(outcome, now)
        return Study(
            number=int(row["number"]),
            epoch=epoch,
            seq=seq,
            intake_id=path.stem,
            tone=tone,
            headline=headline,
            notes=notes,
            bars=[] if answer is None else _bars(answer, words),
            place="" if answer is None else _place(answer, words),
            time="" if recorded is None else recorded.strftime("%H:%M"),
            day="" if recorded is None else recorded.date().isoformat(),
            patient=_name(facts.patient_name) or words("patient.unknown"),
            patient_id=facts.patient_id or "",
            sent="apart" if row["quarantined"] else "yes" if row["receipted"] else "no",
            file=str(row["original_name"]),
            model=outcome.model[:12] if isinstance(outcome, Result) else "",
            typicality=round(100 * answer.typicality) if answer is not None and answer.typicality is not None else None,
            picture=self._picture(path),
            heat=None if answer is None or voided else facts.heat,
            voided=voided,
            # What a rebuilt outbox took over from an earlier epoch is closed: only the centre can take it back.
            may_void=row["kind"] != "void" and not voided and epoch == present,
            choices=_choices(outcome, words) if asked and not voided and isinstance(outcome, Result) else [],
            reading=label_word(standing.given.get(name, ""), words),
        )

    def _picture(self, place: Path) -> Path | None:
        for folder in ("done", "aside"):
            path = self._state / folder / place.name
            if place.name and path.is_file():
                return path
        return None


def label_word(label: str, words: Words) -> str:
    """Return what a reading says as a person reads it; empty for an empty one."""
    special = {"": "", UNDECIDED: words("reading.undecided"), ELSE: words("reading.else")}
    return special[label] if label in special else words.of_class(label)


def _choices(outcome: Result, words: Words) -> list[tuple[str, str]]:
    # In the order of the network's classes: any other order would say something of the answer.
    return [(label, label_word(label, words)) for label in (*outcome.probabilities, ELSE, UNDECIDED)]


def _said(outcome: AnyOutcome | None, words: Words) -> tuple[Tone, str, list[str]]:
    if outcome is None:
        return "problem", words("study.damaged"), [words("study.damaged.why")]
    if isinstance(outcome, Result) and not outcome.shown:
        # Of the notes only those that do not come from the answer.
        notes = [words.reason(code) for code in outcome.quality if code in _SAID_IN_SILENCE]
        return "silent", words("study.silent"), [words("study.silent.why"), *notes]
    if isinstance(outcome, Result):
        notes = [words.reason(code) for code in outcome.quality]
        label = words.of_class(outcome.label)
        if outcome.abstained:
            return "unsure", words("study.not_sure"), notes
        return ("answer" if outcome.label == "normal" else "finding"), label, notes
    if isinstance(outcome, Void):
        return "void", words("study.void"), [words("study.voids", seq=outcome.voids)]
    assert isinstance(outcome, Refusal | Failure)
    return "problem", words("study.no_answer"), [words.reason(code) for code in outcome.reasons]


def _bars(outcome: Result, words: Words) -> list[Bar]:
    return [
        Bar(words.of_class(name), round(100 * value), name == outcome.label)
        for name, value in sorted(outcome.probabilities.items(), key=lambda item: -item[1])
    ]


def _place(outcome: Result, words: Words) -> str:
    if not outcome.heat:
        return ""
    share = outcome.heat
    left = share.get("image_left_upper", 0) + share.get("image_left_lower", 0)
    upper = share.get("image_left_upper", 0) + share.get("image_right_upper", 0)
    said = [
        "left" if left > 1 - _ONE_SIDED else "right" if left < _ONE_SIDED else "both",
        "upper" if upper > 1 - _ONE_SIDED else "lower" if upper < _ONE_SIDED else "",
    ]
    if "image_central" in share:
        central = share["image_central"]
        said.append("central" if central > 1 - _ONE_SIDED else "peripheral" if central < _ONE_SIDED else "")
    return words("zone.where", places=", ".join(words(f"zone.{name}") for name in said if name))


def _name(value: str | None) -> str:
    """Return a DICOM person name (family^given^middle^prefix^suffix, in up to three scripts) as people write it."""
    return next(filter(None, map(_of_one_script, (value or "").split("="))), "")


def _of_one_script(name: str) -> str:
    family, given, middle, _, suffix = (part.strip() for part in (name + "^^^^").split("^")[:5])
    rest = " ".join(part for part in (given, middle, suffix) if part)
    return ", ".join(part for part in (family, rest) if part)
