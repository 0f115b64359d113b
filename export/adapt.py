"""A shipped bundle made to fit a hospital: recalibrated, or its reader trained further, and measured on patients of its own."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge.contract.bundle import MANIFEST_NAME
from edge.errors import CxrError
from edge.network.bundle import Bundle, load_bundle
from edge.network.classify import Classifier, Scores
from edge.network.decide import Rule, decide
from edge.network.typicality import Typicality
from export.adapt_card import (
    DONE,
    PARENT_CARD,
    adapted_card,
    count_lines,
    counts_of,
    licence_of,
    metrics_of,
    remarks_of,
    version_of,
)
from export.adapt_data import FEWEST, Hospital, Mode, Part, read_hospital
from export.adapt_table import Row, answers_of, as_json, compare, lines, verdict
from export.bundle import CARD_NAME, LICENCE_NAME, Words, write_files
from export.calibrate import MISCOVERAGE, fit_thresholds
from export.errors import ReportError
from export.gate_files import MadeGate, fits, read_gate, write_gate
from export.requirements import require_empty
from export.typicality import fit_typicality, with_distances

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Made:
    """`export.bundle.Calibrated`."""

    classes: Sequence[str]
    graph: bytes
    temperature: float
    candidate: float
    sensitivity: dict[str, dict[str, float]]
    typicality: Typicality | None
    gate: MadeGate | None = None


def adapt(
    bundle: Path,
    data: Path,
    out: Path,
    *,
    mode: Mode = "recalibrate",
    layout: str = "",
    labels: Mapping[str, str] | None = None,
    without: Sequence[str] = (),
    fewest: int = FEWEST,
    seed: int = 0,
    say: Say,
) -> list[Row]:
    """Write an adapted bundle into `out`; return what it has changed on the test patients. The same inputs give the same bytes.

    Args:
        bundle: folder of the parent.
        data: folder of the hospital's labelled pictures, in any of the layouts of `export.layouts`.
        out: folder to write; nothing may be in it.
        mode: `recalibrate` fits what turns scores into answers; `fine-tune` trains the reader further before.
        layout: see `export.adapt_data.read_hospital`, as for the next four.
        labels: of class folders.
        without: classes of which there is no picture.
        fewest: patients of each class in the calibration and in the test part.
        seed: of who goes where.
        say: receives lines for a person.

    Raises:
        ReportError: if the parent cannot be used.
        DataError: if the pictures cannot, or something is in `out`.
        WeightsError: if the reader of a strange network is to be trained.
    """
    require_empty(out, "a bundle is never adapted in place")
    parent = _opened(bundle)
    manifest = parent.manifest
    graph = (bundle / manifest.model_file).read_bytes()
    hospital = read_hospital(
        data,
        manifest.classes,
        mode,
        side=manifest.input_side,
        layout=layout,
        labels=labels,
        without=without,
        fewest=fewest,
        seed=seed,
    )
    counts = counts_of(hospital, manifest.classes)
    say(f"{manifest.name} {manifest.version}, model {manifest.model_sha256[:12]}, to be {DONE[mode]} on {hospital.name}")
    for line in count_lines(counts):
        say(line)
    tuning: dict[str, Any] | None = None
    classifier, classes = parent.classifier, manifest.classes
    if mode == "fine-tune":
        classes = [name for name in manifest.classes if name not in without]
        graph, tuning = _tuned(graph, manifest.classes, hospital.parts["training"], classes, seed, say)
        classifier = Classifier(graph)
    miscoverage = MISCOVERAGE if manifest.miscoverage is None else manifest.miscoverage
    made = _calibrated(graph, classifier, classes, hospital, parent, miscoverage)
    gate = read_gate(bundle, parent)
    if fits(parent.classifier, classifier, np.concatenate([part.pixels for part in hospital.parts.values()])):
        made = replace(made, gate=gate)
    rows = _tested(parent, made, classifier, hospital.parts["test"])
    manifest_sha256 = hashlib.sha256((bundle / MANIFEST_NAME).read_bytes()).hexdigest()
    facts: dict[str, Any] = {
        "mode": DONE[mode],
        "parent": {
            "name": manifest.name,
            "version": manifest.version,
            "manifest_sha256": manifest_sha256,
            "model_sha256": manifest.model_sha256,
        },
        "data": {
            "name": hospital.name,
            "layout": hospital.layout,
            "pictures_sha256": hospital.sha256,
            "patients_known": hospital.people,
            "children": hospital.children,
            "refused": hospital.refused,
            "parts": counts,
        },
        "without": sorted(without),
        "fewest_patients": fewest,
        "seed": seed,
        "fitted": _fitted(parent, made, mode),
        "gate": None if gate is None else "kept" if made.gate is not None else "dropped",
        "fine_tuning": tuning,
        "test": as_json(rows),
        "verdict": verdict(rows),
    }
    version = version_of(manifest.version, mode, (manifest_sha256, hospital.sha256, str(seed), *sorted(without)))
    _write(bundle, out, parent, made, hospital, mode, version, miscoverage, facts)
    for line in (*remarks_of(facts), *lines(rows), verdict(rows)):
        say(line)
    say(f"wrote {out}: {manifest.name} {version}")
    return rows


def _opened(folder: Path) -> Bundle:
    try:
        return load_bundle(folder)
    except CxrError as error:
        raise ReportError(str(error)) from None


def _tuned(
    graph: bytes, classes: Sequence[str], part: Part, keep: Sequence[str], seed: int, say: Say
) -> tuple[bytes, dict[str, Any]]:
    from export import fine_tune as tuning  # TensorFlow comes only when it trains

    tuned = tuning.fine_tune(graph, classes, part, keep=keep, seed=seed)
    for name, loss in tuned.losses.items():
        say(f"pull {name}: loss {loss:.4f} on training patients left out in turn")
    say(
        "no training does better there than the weights as they were, so they stay"
        if tuned.pull is None
        else f"pull {tuned.pull:g}"
    )
    recipe = tuning.RECIPE
    return tuned.graph, {
        "pull": tuned.pull,
        "losses": tuned.losses,
        "views": recipe.views,
        "strictness": recipe.strictness,
        "steadiness": recipe.steadiness,
        "indifference": recipe.indifference,
    }


def _calibrated(
    graph: bytes, classifier: Classifier, classes: Sequence[str], hospital: Hospital, parent: Bundle, miscoverage: float
) -> _Made:
    """Fit everything on the calibration part.

    Of a network that has learned here, what is usual is what it learned from: fitted to a distance from the parent's pictures, it
    would take theirs for usual too, and answer them with what it no longer knows.
    """
    part = hospital.parts["calibration"]
    scores = _scores(classifier, part)
    truth = np.array([list(classes).index(label) for label in part.labels], dtype=np.int64)
    found = fit_thresholds(np.stack([one.logits for one in scores]).astype(np.float64), truth, classes, miscoverage)
    known, training = parent.typicality, hospital.parts.get("training")
    if known is not None:
        traits = np.stack([one.traits for one in scores])
        if training is None:
            known = with_distances(known, traits)
        else:
            learned = np.stack([one.traits for one in _scores(classifier, training)])
            kinds = np.unique([sample.source for sample in training.samples], return_inverse=True)[1]
            known = fit_typicality(learned, kinds, traits, known.limit)
    return _Made(classes, graph, found.temperature, found.candidate, found.sensitivity, known)


def _tested(parent: Bundle, made: _Made, classifier: Classifier, part: Part) -> list[Row]:
    rule = Rule(tuple(made.classes), made.temperature, made.candidate, made.candidate, made.typicality)
    before = answers_of(_scores(parent.classifier, part), parent.answer, parent.manifest.classes)
    after = answers_of(_scores(classifier, part), lambda one: decide(one, rule), made.classes)
    return compare(before, after, part.labels, part.patients)


def _scores(classifier: Classifier, part: Part) -> list[Scores]:
    return [classifier.run(picture) for picture in part.pixels]


def _fitted(parent: Bundle, made: _Made, mode: Mode) -> dict[str, dict[str, float]]:
    manifest = parent.manifest
    rows = {
        "temperature": {"before": manifest.temperature, "after": made.temperature},
        "answers when one class alone has a probability of at least": {"before": manifest.candidate, "after": made.candidate},
    }
    if parent.typicality is not None and made.typicality is not None and mode == "recalibrate":
        ends = [round(float(np.quantile(k.distances, 1 - k.limit)), 2) for k in (parent.typicality, made.typicality)]
        rows["answers pictures up to this distance from what was learned"] = {"before": ends[0], "after": ends[1]}
    return rows


def _write(
    bundle: Path,
    out: Path,
    parent: Bundle,
    made: _Made,
    hospital: Hospital,
    mode: Mode,
    version: str,
    miscoverage: float,
    facts: dict[str, Any],
) -> None:
    """Write beside, verify as a device does, then rename: a run that is stopped leaves no half bundle."""
    manifest = parent.manifest
    lost = [name for name in manifest.classes if name not in made.classes]
    report: dict[str, Any] = {
        "intended_use": manifest.intended_use + (f" This bundle no longer says {' or '.join(lost)}." if lost else ""),
        "classes": list(made.classes),
        "preprocessing": manifest.preprocessing,
        "preprocessing_side": manifest.input_side,
        "miscoverage": miscoverage,
        "version": version,
        "adapted": facts,
    }
    licence = _text(bundle / LICENCE_NAME)
    words = Words(
        name=manifest.name,
        version=version,
        classes=made.classes,
        miscoverage=miscoverage,
        trained_on=[*manifest.trained_on, _learned(hospital, mode)],
        licence=manifest.licence,
        licence_text=licence_of(licence, mode, hospital),
        intended_use=report["intended_use"],
        metrics=metrics_of(facts),
        card=adapted_card(report, manifest.name),
        report=report,
        beside={PARENT_CARD: _text(bundle / CARD_NAME)},
        minimum_age=0 if hospital.children else manifest.minimum_age,
    )
    beside = out.with_name(f"{out.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    write_files(beside, made, words)
    if made.gate is not None:
        write_gate(beside, made.gate)
    _opened(beside)
    if out.exists():
        out.rmdir()
    beside.rename(out)


def _learned(hospital: Hospital, mode: Mode) -> str:
    part = hospital.parts["training" if mode == "fine-tune" else "calibration"]
    people = len(set(part.patients))
    return f"{hospital.name}: {DONE[mode]} on {len(part.samples)} pictures of {people} patients (without its test patients)"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
