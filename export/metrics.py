"""Figures of merit with 95% intervals. Pictures of a patient are not independent, so whole patients are resampled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Statistic = Callable[[Floats], float]
"""From one weight a picture to a figure; not a number where the weights leave a class empty."""

REPLICATES = 1000
"""Bootstrap samples of a report. The ends of an interval then move by about a hundredth of its width from seed to seed."""


@dataclass(frozen=True)
class Estimate:
    """A figure and the bounds of its 95% interval."""

    value: float
    low: float
    high: float
    pictures: int
    patients: int


def confusion(truth: Ints, answer: Ints, classes: int, weights: Floats | None = None) -> Floats:
    """Return counts (or sums of weights), shape (classes, classes); rows are the truth."""
    flat = np.bincount(truth * classes + answer, weights=weights, minlength=classes * classes)
    return flat.reshape(classes, classes).astype(np.float64)


def accuracy(table: Floats) -> float:
    """Return the share of right answers of a confusion table, 0..1."""
    return float(np.trace(table) / table.sum())


def macro_recall(table: Floats) -> float:
    """Return the mean over the classes that occur of the share found, 0..1."""
    present = table.sum(axis=1)
    return float(np.mean(np.diag(table)[present > 0] / present[present > 0]))


def auc(positive: npt.NDArray[np.bool_], score: Floats, weights: Floats | None = None) -> float:
    """Return the area under the ROC curve: the chance that a positive scores higher than a negative, ties count half.

    Not a number when there are no positives or no negatives. (Hanley and McNeil 1982, "The meaning and use of the area under a
    receiver operating characteristic (ROC) curve".)
    """
    weight = np.ones(len(score)) if weights is None else weights
    _, level = np.unique(score, return_inverse=True)
    up = np.bincount(level, weights=weight * positive)
    down = np.bincount(level, weights=weight * ~positive)
    pairs = up.sum() * down.sum()
    below = np.cumsum(down) - down
    return float(np.sum(up * (below + down / 2)) / pairs) if pairs > 0 else float("nan")


def interval(statistic: Statistic, patients: npt.NDArray[np.str_], *, replicates: int = 2000, seed: int = 0) -> Estimate:
    """Return the figure with its percentile bootstrap interval over patients (Efron 1979, "Bootstrap methods").

    Replicates where the figure is not a number (a class left empty) are left out.
    """
    _, owner = np.unique(patients, return_inverse=True)
    people = int(owner.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = [statistic(rng.multinomial(people, np.full(people, 1 / people))[owner].astype(np.float64)) for _ in range(replicates)]
    low, high = np.nanpercentile(drawn, (2.5, 97.5))
    return Estimate(statistic(np.ones(len(patients))), float(low), float(high), len(patients), people)


def accuracy_interval(truth: Ints, answer: Ints, classes: int, patients: npt.NDArray[np.str_]) -> Estimate:
    """Return the accuracy over all pictures."""
    return interval(lambda weights: accuracy(confusion(truth, answer, classes, weights)), patients)


def macro_recall_interval(truth: Ints, answer: Ints, classes: int, patients: npt.NDArray[np.str_]) -> Estimate:
    """Return the mean recall over the classes."""
    return interval(lambda weights: macro_recall(confusion(truth, answer, classes, weights)), patients)


def auc_interval(positive: npt.NDArray[np.bool_], score: Floats, patients: npt.NDArray[np.str_]) -> Estimate:
    """Return the area under the ROC curve."""
    return interval(lambda weights: auc(positive, score, weights), patients)


def draws(patients: npt.NDArray[np.str_], replicates: int = REPLICATES, seed: int = 0) -> Floats:
    """Return one weight a picture for each bootstrap sample of the patients, shape (replicates, n).

    All figures of one set of pictures can use the same draws: they are then sums of products of matrices.
    """
    _, owner = np.unique(patients, return_inverse=True)
    people = int(owner.max()) + 1
    counts = np.random.default_rng(seed).multinomial(people, np.full(people, 1 / people), size=replicates)
    return np.asarray(counts[:, owner], dtype=np.float64)


def confusions(truth: Ints, answer: Ints, classes: int, weights: Floats) -> Floats:
    """Return `confusion` for every row of weights (replicates, n); shape (replicates, classes, classes)."""
    cells = np.zeros((len(truth), classes * classes))
    cells[np.arange(len(truth)), truth * classes + answer] = 1.0
    return np.asarray((weights @ cells).reshape(len(weights), classes, classes))


def aucs(positive: npt.NDArray[np.bool_], score: Floats, weights: Floats) -> Floats:
    """Return `auc` for every row of weights (replicates, n); not a number where a side is empty."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(score[order]) != 0])
    up = np.add.reduceat(weights[:, order] * positive[order], starts, axis=1)
    down = np.add.reduceat(weights[:, order] * ~positive[order], starts, axis=1)
    pairs = up.sum(axis=1) * down.sum(axis=1)
    below = np.cumsum(down, axis=1) - down
    return divide((up * (below + down / 2)).sum(axis=1), pairs)


def bounded(value: float, drawn: Floats, pictures: int, patients: int, fewest: int | None = None) -> Estimate | None:
    """Return a figure with the interval of its bootstrap replicates; None where it is not a number.

    A share that was 0 or 1 in every replicate says nothing of its own uncertainty. Its interval is then the exact one of
    Clopper and Pearson 1934 ("The use of confidence or fiducial limits") with one observation a patient, or with `fewest`
    observations where a figure rests on several groups of patients and the smallest of them has so many.
    """
    known = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or len(known) == 0:
        return None
    low, high = (float(bound) for bound in np.percentile(known, (2.5, 97.5)))
    if low == high and value in (0.0, 1.0):
        reach = 0.025 ** (1 / max(patients if fewest is None else fewest, 1))
        low, high = (reach, 1.0) if value == 1.0 else (0.0, 1 - reach)
    return Estimate(float(value), low, high, pictures, patients)


def divide(above: Floats, below: Floats) -> Floats:
    """Return the quotient, not a number where the divisor is 0."""
    return np.asarray(np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0))
