"""From the outbox and the local files to what the page shows of a study. Reads only; the words come from `edge.page.words`."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edge.clock import synchronised
from edge.contract.codec import decode_outcome
from edge.contract.messages import AnyOutcome, Failure, Refusal, Result, Void
from edge.local import Heat, LocalFacts, LocalStore
from edge.page.reading import Reading
from edge.page.words import Words

Tone = Literal["answer", "finding", "unsure", "problem", "void"]
Sent = Literal["yes", "no", "apart"]

_LISTED = 200
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
    """One outcome as the clinic reads it. number: in this outbox; seq: in its epoch. picture: the file, if it is still there."""

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


class Studies:
    """Of one device."""

    def __init__(self, state: Path, reading: Reading, local: LocalStore) -> None:
        self._state = state
        self._reading = reading
        self._local = local

    def list(self, words: Words) -> tuple[list[Study], bool]:
        """Return (studies, whether they are those of today); the latest ones where the clock cannot tell the day."""
        with self._reading.open() as outbox:
            voided, rows = outbox.voided(), outbox.listing(_LISTED)
            studies = [self._study(row, words, voided, outbox.epoch) for row in rows if row["kind"] != "void"]
        if not synchronised():
            return studies, False
        today = datetime.datetime.now().astimezone().date().isoformat()
        return [study for study in studies if study.day == today], True

    def one(self, number: int, words: Words) -> Study | None:
        """Return one study."""
        with self._reading.open() as outbox:
            row = outbox.row(number)
            return None if row is None else self._study(row, words, outbox.voided(), outbox.epoch)

    def number_of(self, intake_id: str) -> int | None:
        """Return in which outcome an intake ended; None while it waits."""
        with self._reading.open() as outbox:
            return outbox.number_of_place(intake_id)

    def waiting(self) -> int:
        """Return how many outcomes have no receipt."""
        with self._reading.open() as outbox:
            return outbox.waiting()

    def _study(self, row: dict[str, Any], words: Words, all_voided: set[tuple[str, int]], epoch: str) -> Study:
        outcome = decode_outcome(row["payload"])
        path = Path(str(row["place"]))
        facts = self._local.read(path.stem) if path.stem else LocalFacts()
        tone, headline, notes = _said(outcome, words)
        voided = (outcome.epoch, outcome.seq) in all_voided
        if voided:
            tone, notes = "void", [words("study.voided"), *notes]
        time, day = _when(outcome)
        return Study(
            number=int(row["number"]),
            epoch=outcome.epoch,
            seq=outcome.seq,
            intake_id=path.stem,
            tone=tone,
            headline=headline,
            notes=notes,
            bars=_bars(outcome, words),
            place=_place(outcome, words),
            time=time,
            day=day,
            patient=_name(facts.patient_name) or words("patient.unknown"),
            patient_id=facts.patient_id or "",
            sent="apart" if row["quarantined"] else "yes" if row["receipted"] else "no",
            file=str(row["original_name"]),
            model=outcome.model[:12] if isinstance(outcome, Result) else "",
            typicality=round(100 * outcome.typicality) if isinstance(outcome, Result) and outcome.typicality is not None else None,
            picture=self._picture(path),
            heat=facts.heat if isinstance(outcome, Result) else None,
            voided=voided,
            # What a rebuilt outbox took over from an earlier epoch is closed: only the centre can take it back.
            may_void=not isinstance(outcome, Void) and not voided and outcome.epoch == epoch,
        )

    def _picture(self, place: Path) -> Path | None:
        for folder in ("done", "aside"):
            path = self._state / folder / place.name
            if place.name and path.is_file():
                return path
        return None


def _said(outcome: AnyOutcome, words: Words) -> tuple[Tone, str, list[str]]:
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


def _bars(outcome: AnyOutcome, words: Words) -> list[Bar]:
    if not isinstance(outcome, Result):
        return []
    return [
        Bar(words.of_class(name), round(100 * value), name == outcome.label)
        for name, value in sorted(outcome.probabilities.items(), key=lambda item: -item[1])
    ]


def _place(outcome: AnyOutcome, words: Words) -> str:
    if not isinstance(outcome, Result) or not outcome.heat:
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


def _when(outcome: AnyOutcome) -> tuple[str, str]:
    """Return (time, day) where the device is; empty where its clock was not set."""
    if not outcome.clock_synchronised:
        return "", ""
    try:
        moment = datetime.datetime.fromisoformat(outcome.recorded_at.rstrip("Z")).replace(tzinfo=datetime.timezone.utc).astimezone()
    except ValueError:
        return "", ""
    return moment.strftime("%H:%M"), moment.date().isoformat()


def _name(value: str | None) -> str:
    """Return a DICOM person name (family^given^middle) as people write it."""
    parts = [part.strip() for part in (value or "").split("=")[0].split("^")]
    family, given = parts[0], " ".join(part for part in parts[1:3] if part)
    return ", ".join(part for part in (family, given) if part)
