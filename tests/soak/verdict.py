"""The centre's rows against what the senders were told: what is lost, what counts twice, and where the lost were seen last."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.contract.codec import decode_outcome
from edge.contract.messages import AnyOutcome, Failure
from edge.dicom.arrival import spool_name
from edge.intake.spool import Spool
from edge.outbox.reader import OutboxReader
from edge.privacy.pseudonym import SiteKey
from tests.soak.ledger import Ledger
from tests.soak.studies import Study
from tests.support.clinic import Device

_BY_KILLS = {"internal_error", "decoder_crashed", "decoder_memory"}
"""Why a picture that is fine may end in a failure: what read it was killed at it time and again."""
_SHOWN = 20


@dataclass
class Verdict:
    """`faults`: a sentence for each thing that is wrong; empty if all is well."""

    lost: int = 0
    duplicates: int = 0
    faults: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """What is looked at. past: source keys of outcomes that waited on the device before the first study."""

    ledger: Ledger
    device: Device
    key: SiteKey
    past: frozenset[str]
    database: Path


def judge(evidence: Evidence) -> Verdict:
    """Compare; nothing may run any more."""
    verdict = Verdict()
    outcomes = _rows(evidence.database)
    by_key: dict[str, list[AnyOutcome]] = defaultdict(list)
    for outcome in outcomes:
        by_key[outcome.source_key].append(outcome)
    told, voids, met = evidence.ledger.account()
    expected: set[str] = set(evidence.past)
    for key in evidence.past:
        _count(verdict, by_key[key], f"past outcome {key[-8:]}", lambda: "")
    for study, sources in told.items():
        keys = {evidence.key.keyed("source", source) for source in sources}
        expected |= keys
        found = [outcome for key in keys for outcome in by_key[key]]
        _count(verdict, found, study.name, lambda study=study, keys=keys: _last_seen(evidence, study, keys))
        for outcome in found:
            if _kind(outcome) != study.kind and not (isinstance(outcome, Failure) and _BY_KILLS & set(outcome.reasons)):
                verdict.faults.append(f"{study.name} is {outcome!r:.300}, and should be a {study.kind}")
    for number in voids:
        keys = {evidence.key.keyed("source", f"void:{epoch}:{number}") for epoch in {outcome.epoch for outcome in outcomes}}
        expected |= keys
        _count(verdict, [outcome for key in keys for outcome in by_key[key]], f"void of {number}", lambda: "")
    strays = [outcome for key in by_key.keys() - expected for outcome in by_key[key]]
    verdict.faults += [f"nobody sent this: {outcome!r:.300}" for outcome in strays]
    _check_order(verdict, outcomes)
    _check_quarantine(verdict, evidence.database)
    verdict.figures = {
        "told_by": dict(Counter(study.way for study in told)),
        "outcomes": dict(Counter(_kind(outcome) for outcome in outcomes)),
        "past_outcomes": len(evidence.past),
        "voids_told": len(voids),
        "failures_by_kills": sum(isinstance(outcome, Failure) and bool(_BY_KILLS & set(outcome.reasons)) for outcome in outcomes),
        "recorded_in": dict(Counter(outcome.recorded_at[:4] for outcome in outcomes if outcome.source_key not in evidence.past)),
        "senders_met": dict(met),
        "half_written": dict(Counter(path.parent.name for path in evidence.device.state.glob("*/*.part"))),
    }
    return verdict


def _rows(database: Path) -> list[AnyOutcome]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
        return [decode_outcome(payload) for (payload,) in db.execute("SELECT payload FROM outcomes ORDER BY id")]


def _count(verdict: Verdict, found: list[AnyOutcome], name: str, last_seen: Any) -> None:
    if not found:
        verdict.lost += 1
        if verdict.lost <= _SHOWN:
            verdict.faults.append(f"lost: {name} {last_seen()}")
    elif len(found) > 1:
        verdict.duplicates += len(found) - 1
        numbers = [(outcome.epoch[:4], outcome.seq) for outcome in found]
        verdict.faults.append(f"counted {len(found)} times: {name} as {numbers}")


def _check_order(verdict: Verdict, outcomes: list[AnyOutcome]) -> None:
    seqs: dict[str, list[int]] = defaultdict(list)
    for outcome in outcomes:
        seqs[outcome.epoch].append(outcome.seq)
    if len(seqs) > 1:
        verdict.faults.append(f"there are {len(seqs)} epochs: an outbox was taken for damaged")
    for epoch, given in seqs.items():
        if sorted(given) != list(range(1, len(given) + 1)):
            verdict.faults.append(f"the seqs of epoch {epoch[:4]} have holes, or are there twice")


def _check_quarantine(verdict: Verdict, database: Path) -> None:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT reason, detail FROM quarantine LIMIT 5").fetchall()
    verdict.faults += [f"in quarantine: {row}" for row in rows]


def _last_seen(evidence: Evidence, study: Study, keys: set[str]) -> str:
    """Say where a lost study is or was, from the sender on."""
    state = evidence.device.state
    places = []
    if (evidence.device.inbox / study.name).exists():
        places.append("it is still in the watched folder")
    spool = Spool(state)
    if {study.name, spool_name(study.uid)} & spool.names_waiting():
        places.append("it is still in the spool")
    with closing(OutboxReader(state / "outbox.db", evidence.device.name)) as outbox:
        for key in keys:
            if (known := outbox.find(key)) is not None:
                row = outbox.row(known.seq) or {}
                places.append(f"the outbox has it as seq {known.seq}, receipted: {bool(row.get('receipted'))}")
    return f"({study.way}): {'; '.join(places) or 'nowhere on the device'}"


def _kind(outcome: AnyOutcome) -> str:
    return type(outcome).__name__.lower()
