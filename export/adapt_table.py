"""What an adaptation has changed on patients that nothing was fitted to: figures before and after, and their paired differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.network.classify import Scores
from edge.network.decide import Decision
from export.metrics import Estimate, Floats, aucs, bounded, divide, draws

BINS = 10
"""Of confidence, equally wide, as in `export.evaluate.calibration_error`."""


@dataclass(frozen=True)
class Answers:
    """What a device says of n pictures. classes: that it knows. chances: shape (n, classes). answered: shape (n,)."""

    classes: tuple[str, ...]
    chances: Floats
    answered: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Row:
    """One figure. gain: 1 where more is better, -1 where less is. difference: after minus before, drawn in pairs."""

    name: str
    gain: int
    before: Estimate | None
    after: Estimate | None
    difference: Estimate | None

    @property
    def verdict(self) -> int:
        """1 if it is better, -1 if it is worse, 0 if the 95% interval of the difference holds 0."""
        if self.difference is None or self.difference.low <= 0 <= self.difference.high:
            return 0
        return self.gain if self.difference.value > 0 else -self.gain


def answers_of(scores: Sequence[Scores], decide: Callable[[Scores], Decision], classes: Sequence[str]) -> Answers:
    """Return what a device says of pictures, by its own code."""
    decisions = [decide(one) for one in scores]
    return Answers(
        classes=tuple(classes),
        chances=np.array([list(decision.probabilities.values()) for decision in decisions], dtype=np.float64),
        answered=np.array([not decision.abstained for decision in decisions], dtype=np.bool_),
    )


def compare(before: Answers, after: Answers, truth: npt.NDArray[np.str_], patients: npt.NDArray[np.str_]) -> list[Row]:
    """Return all figures of the same pictures. Intervals are of a bootstrap over patients, the same for both.

    Args:
        before: of the parent.
        after: of the adapted bundle, which may know fewer classes.
        truth: shape (n,), names of classes that both know.
        patients: shape (n,).
    """
    weights = np.vstack([np.ones(len(truth)), draws(patients)])
    people = len(set(patients))
    first, second = (_figures(answers, truth, weights) for answers in (before, after))
    rows = []
    for name, (gain, old) in first.items():
        new = second[name][1]
        change = new - old
        rows.append(
            Row(
                name,
                gain,
                bounded(float(old[0]), old[1:], len(truth), people),
                bounded(float(new[0]), new[1:], len(truth), people),
                _difference(change, len(truth), people),
            )
        )
    return rows


def verdict(rows: Sequence[Row]) -> str:
    """Return in words whether the adapted bundle is better."""
    better = [row.name for row in rows if row.verdict > 0]
    worse = [row.name for row in rows if row.verdict < 0]
    if better and not worse:
        return f"The adapted bundle is better on the test patients in: {'; '.join(better)}. No figure is worse."
    if better:
        return (
            f"The adapted bundle is better on the test patients in: {'; '.join(better)}. It is WORSE in: {'; '.join(worse)}. "
            "Whether that is a gain is for a person to judge."
        )
    if worse:
        return f"The adapted bundle is NOT BETTER: it is worse on the test patients in: {'; '.join(worse)}. Keep the one you had."
    return "The adapted bundle is NOT BETTER on the test patients: no figure differs by more than chance. Keep the one you had."


def lines(rows: Sequence[Row]) -> list[str]:
    """Return the table as text of fixed width."""
    wide = max(len(row.name) for row in rows)
    result = [f"{'':{wide}}  {'before':<22} {'after':<22} after minus before"]
    for row in rows:
        mark = {1: "  better", -1: "  WORSE", 0: ""}[row.verdict]
        result.append(f"{row.name:{wide}}  {span(row.before):<22} {span(row.after):<22} {span(row.difference, '+')}{mark}")
    return result


def span(estimate: Estimate | None, sign: str = "") -> str:
    """Return a figure with its interval; a dash where there is none."""
    if estimate is None:
        return "-"
    return f"{estimate.value:{sign}.3f} ({estimate.low:{sign}.3f} to {estimate.high:{sign}.3f})"


def as_json(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the table as JSON values, rounded to four digits."""
    return {row.name: {part: _json(getattr(row, part)) for part in ("before", "after", "difference")} for row in rows}


def _json(estimate: Estimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(estimate).items()}


def _difference(change: Floats, pictures: int, people: int) -> Estimate | None:
    drawn = change[1:][np.isfinite(change[1:])]
    if not np.isfinite(change[0]) or len(drawn) == 0:
        return None
    low, high = (float(bound) for bound in np.percentile(drawn, (2.5, 97.5)))
    return Estimate(float(change[0]), low, high, pictures, people)


def _figures(answers: Answers, truth: npt.NDArray[np.str_], weights: Floats) -> dict[str, tuple[int, Floats]]:
    """Return name -> (gain, its value for every row of weights)."""
    best = answers.chances.max(axis=1)
    right = np.array(answers.classes)[answers.chances.argmax(axis=1)] == truth
    total = weights.sum(axis=1)
    result = {"accuracy, had it answered all": (1, weights @ right / total)}
    for number, name in enumerate(answers.classes):
        positive = truth == name
        if 0 < positive.sum() < len(truth):
            result[f"AUC, {name} against the rest"] = (1, aucs(positive, answers.chances[:, number], weights))
    member = np.eye(BINS)[np.minimum((best * BINS).astype(np.int64), BINS - 1)]
    gaps = np.abs(weights @ (member * (best - right)[:, np.newaxis])).sum(axis=1)
    result["expected calibration error"] = (-1, gaps / total)
    result["share answered"] = (1, weights @ answers.answered / total)
    result["accuracy of the answered"] = (1, divide(weights @ (answers.answered & right), weights @ answers.answered))
    result["confident wrong, of all"] = (-1, weights @ (answers.answered & ~right) / total)
    return result
