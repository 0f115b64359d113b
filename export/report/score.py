"""All figures of one network on one set of pictures. Every interval is a 95% bootstrap interval over patients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from export.metrics import Estimate, Floats, aucs, bounded, confusions, divide, draws
from export.report.blocks import Block, Bools

PREVALENCES = (0.02, 0.10, 0.30)
"""Shares of people with the finding for which predictive values are given: a screening, a clinic, a ward in an outbreak."""
ENOUGH = 10
"""Patients on each side below which an area under the curve, and any figure of a subgroup, is not given."""
BINS = 10
"""Of confidence, equally wide, in the reliability diagram."""
_ROC_POINTS = 200


@dataclass(frozen=True)
class Predictive:
    """What an answer is worth where a share `prevalence` of the people has the finding, 0..1."""

    prevalence: float
    ppv: Estimate | None
    npv: Estimate | None


@dataclass(frozen=True)
class ClassFigures:
    """One class against the rest; pictures and patients are those of the class."""

    name: str
    pictures: int
    patients: int
    sensitivity: Estimate | None
    specificity: Estimate | None
    f1: Estimate | None
    auc: Estimate | None
    predictive: tuple[Predictive, ...]


@dataclass(frozen=True)
class Bin:
    """Pictures of about the same confidence: how many, how sure the network was, how often it was right."""

    low: float
    high: float
    pictures: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """error: expected calibration error, 0..1."""

    error: Estimate | None
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Abstention:
    """coverage: share of pictures that get an answer. answered, declined: accuracy of the two parts.

    confident_wrong: share of all pictures that get a wrong answer.
    """

    coverage: Estimate | None
    answered: Estimate | None
    declined: Estimate | None
    confident_wrong: Estimate | None


@dataclass(frozen=True)
class Roc:
    """Points of a curve, from (0, 0) to (1, 1)."""

    name: str
    false_alarms: tuple[float, ...]
    found: tuple[float, ...]


@dataclass(frozen=True)
class Score:
    """Everything. confusion: rows are the truth. Answers count also where the network would have declined, but for `abstention`."""

    pictures: int
    patients: int
    accuracy: Estimate | None
    macro_recall: Estimate | None
    classes: tuple[ClassFigures, ...]
    confusion: tuple[tuple[int, ...], ...]
    calibration: Calibration
    abstention: Abstention
    roc: tuple[Roc, ...]

    def of(self, name: str) -> ClassFigures:
        """Return the figures of one class."""
        return next(figures for figures in self.classes if figures.name == name)


def score(block: Block) -> Score:
    """Return all figures of a block whose pictures all have a label of the classes."""
    weights = draws(block.patients)
    everyone = np.vstack([np.ones(len(block)), weights])
    tables = confusions(block.truth, block.answer, len(block.classes), everyone)
    accuracy = divide(np.trace(tables, axis1=1, axis2=2), tables.sum(axis=(1, 2)))
    present = tables.sum(axis=2)
    recall = divide(np.diagonal(tables, axis1=1, axis2=2), present)
    seen = present > 0
    macro = np.where(seen, np.nan_to_num(recall), 0.0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
    everything = np.ones(len(block), dtype=np.bool_)
    held = [number for number in range(len(block.classes)) if (block.truth == number).any()]
    return Score(
        pictures=len(block),
        patients=len(set(block.patients)),
        accuracy=_figure(accuracy, block, everything),
        macro_recall=_figure(macro, block, everything, min((len(set(block.patients[block.truth == c])) for c in held), default=1)),
        classes=tuple(_class(block, number, tables, everyone) for number in range(len(block.classes))),
        confusion=tuple(tuple(int(count) for count in row) for row in tables[0]),
        calibration=calibration(block, everyone),
        abstention=abstention(block, everyone),
        roc=tuple(roc(block, number) for number in held) if len(held) > 1 else (),
    )


def share(block: Block, right: Bools, among: Bools, everyone: Floats | None = None) -> Estimate | None:
    """Return the share of pictures in `among` that are `right`; None if there are none."""
    rows = np.vstack([np.ones(len(block)), draws(block.patients)]) if everyone is None else everyone
    return _figure(divide(rows @ (right & among), rows @ among.astype(np.float64)), block, among)


def auc_of(block: Block, number: int, everyone: Floats | None = None) -> Estimate | None:
    """Return the area under the curve of one class against the rest; None if one side has too few patients."""
    rows = np.vstack([np.ones(len(block)), draws(block.patients)]) if everyone is None else everyone
    positive = block.truth == number
    fewest = min(len(set(block.patients[positive])), len(set(block.patients[~positive])))
    if fewest < ENOUGH:
        return None
    return _figure(aucs(positive, block.chances[:, number], rows), block, np.ones(len(block), dtype=np.bool_), fewest)


def roc(block: Block, number: int) -> Roc:
    """Return the curve of one class against the rest, thinned to at most some 200 points."""
    chance, positive = block.chances[:, number], block.truth == number
    order = np.argsort(-chance, kind="stable")
    last = np.r_[np.diff(chance[order]) != 0, True]
    found = np.r_[0.0, np.cumsum(positive[order])[last] / positive.sum()]
    alarms = np.r_[0.0, np.cumsum(~positive[order])[last] / (~positive).sum()]
    kept = np.unique(np.linspace(0, len(found) - 1, _ROC_POINTS).astype(np.int64))
    rounded = [tuple(round(float(value), 4) for value in values[kept]) for values in (alarms, found)]
    return Roc(block.classes[number], rounded[0], rounded[1])


def calibration(block: Block, everyone: Floats) -> Calibration:
    """Return the reliability of the highest probability, after temperature.

    Naeini et al. 2015, "Obtaining well calibrated probabilities using Bayesian binning". The error is a sum of absolute gaps, so
    the smaller a sample, the larger it comes out, also of a perfect network; its interval lies rather too high than too low.
    """
    best = block.chances.max(axis=1)
    right = (block.answer == block.truth).astype(np.float64)
    place = np.minimum((best * BINS).astype(np.int64), BINS - 1)
    member = np.eye(BINS)[place]
    gaps = np.abs(everyone @ (member * (best - right)[:, np.newaxis])).sum(axis=1) / everyone.sum(axis=1)
    counts = member.sum(axis=0)
    bins = tuple(
        Bin(
            low=number / BINS,
            high=(number + 1) / BINS,
            pictures=int(counts[number]),
            confidence=round(float(best[place == number].mean()), 4) if counts[number] else None,
            accuracy=round(float(right[place == number].mean()), 4) if counts[number] else None,
        )
        for number in range(BINS)
    )
    return Calibration(_figure(gaps, block, np.ones(len(block), dtype=np.bool_)), bins)


def abstention(block: Block, everyone: Floats) -> Abstention:
    """Return how often the network answers, and how good its answers are."""
    right, all_of_them = block.answer == block.truth, np.ones(len(block), dtype=np.bool_)
    return Abstention(
        coverage=share(block, block.answered, all_of_them, everyone),
        answered=share(block, right, block.answered, everyone),
        declined=share(block, right, ~block.answered, everyone),
        confident_wrong=share(block, block.answered & ~right, all_of_them, everyone),
    )


def predictive_values(sensitivity: Floats, specificity: Floats, prevalence: float) -> tuple[Floats, Floats]:
    """Return the positive and the negative predictive value at a prevalence, by Bayes' theorem; not a number for 0 / 0."""
    found, missed = sensitivity * prevalence, (1 - sensitivity) * prevalence
    alarm, clear = (1 - specificity) * (1 - prevalence), specificity * (1 - prevalence)
    return divide(found, found + alarm), divide(clear, clear + missed)


def _class(block: Block, number: int, tables: Floats, everyone: Floats) -> ClassFigures:
    positive = block.truth == number
    hit = tables[:, number, number]
    missed = tables[:, number].sum(axis=1) - hit
    alarm = tables[:, :, number].sum(axis=1) - hit
    clear = tables.sum(axis=(1, 2)) - hit - missed - alarm
    sensitivity, specificity = divide(hit, hit + missed), divide(clear, clear + alarm)
    everything = np.ones(len(block), dtype=np.bool_)
    people = len(set(block.patients[positive]))
    found, cleared = _figure(sensitivity, block, positive), _figure(specificity, block, ~positive)
    return ClassFigures(
        name=block.classes[number],
        pictures=int(positive.sum()),
        patients=people,
        sensitivity=found,
        specificity=cleared,
        f1=_figure(divide(2 * hit, 2 * hit + missed + alarm), block, everything, people) if positive.any() else None,
        auc=auc_of(block, number, everyone),
        predictive=tuple(_predictive(block, sensitivity, specificity, found, cleared, share) for share in PREVALENCES),
    )


def _predictive(
    block: Block, sensitivity: Floats, specificity: Floats, found: Estimate | None, cleared: Estimate | None, prevalence: float
) -> Predictive:
    """Bootstrapped together; but a specificity that was 1 in every replicate would give a certain PPV, so bounds stand in there."""
    if found is None or cleared is None:
        return Predictive(prevalence, None, None)
    values = predictive_values(sensitivity, specificity, prevalence)
    if min(float(np.nanmax(drawn) - np.nanmin(drawn)) for drawn in (sensitivity, specificity)) > 0:
        everything = np.ones(len(block), dtype=np.bool_)
        ppv, npv = (_figure(drawn, block, everything) for drawn in values)
        return Predictive(prevalence, ppv, npv)
    ends = predictive_values(
        np.array([found.value, found.low, found.high]), np.array([cleared.value, cleared.low, cleared.high]), prevalence
    )
    ppv, npv = (_between(each, block) for each in ends)
    return Predictive(prevalence, ppv, npv)


def _between(ends: Floats, block: Block) -> Estimate | None:
    value, low, high = (float(end) for end in ends)
    return Estimate(value, low, high, len(block), len(set(block.patients))) if np.isfinite(ends).all() else None


def _figure(values: Floats, block: Block, among: Bools, fewest: int | None = None) -> Estimate | None:
    """The first value is that of the pictures themselves, the others are of the replicates."""
    if not among.any():
        return None
    return bounded(float(values[0]), values[1:], int(among.sum()), len(set(block.patients[among])), fewest)
