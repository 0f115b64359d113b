"""What the int8 files can and cannot do, as one report of plain numbers. Every figure is of patients the model has not seen."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from export.calibrate import probabilities
from export.dataset import CLASSES, Pixels
from export.metrics import Estimate, Ints, accuracy, accuracy_interval, auc_interval, confusion, interval, macro_recall_interval

Floats = npt.NDArray[np.float64]
Patients = npt.NDArray[np.str_]
Figure = dict[str, Any]

NORMAL, PNEUMONIA, COVID = range(3)
_BLACK_SHARE = 0.61


def figure(estimate: Estimate) -> Figure:
    """Return an estimate as JSON values, rounded to four digits."""
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(estimate).items()}


def three_classes(logits: Floats, truth: Ints, patients: Patients) -> Figure:
    """Return accuracy, macro recall, confusion table and the area under the curve of covid19 against the rest."""
    answer = np.asarray(logits.argmax(axis=1), dtype=np.int64)
    table = confusion(truth, answer, len(CLASSES))
    recall = np.diag(table) / np.maximum(table.sum(axis=1), 1)
    result: Figure = {
        "accuracy": figure(accuracy_interval(truth, answer, len(CLASSES), patients)),
        "macro_recall": figure(macro_recall_interval(truth, answer, len(CLASSES), patients)),
        "recall": {name: round(float(value), 4) for name, value in zip(CLASSES, recall, strict=True)},
        "confusion_rows_are_truth": table.astype(int).tolist(),
    }
    if 0 < int((truth == COVID).sum()) < len(truth):
        result["covid19_against_rest_auc"] = figure(auc_interval(truth == COVID, probabilities(logits, 1.0)[:, COVID], patients))
    return result


def accuracy_difference(first: Floats, second: Floats, truth: Ints, patients: Patients) -> Figure:
    """Return the accuracy of `first` minus that of `second` on the same pictures, bootstrapped in pairs."""
    right = (first.argmax(axis=1) == truth).astype(np.float64) - (second.argmax(axis=1) == truth)
    return figure(interval(lambda weights: float(np.sum(weights * right) / np.sum(weights)), patients))


def covid_against_rest(logits: Floats, truth: Ints, patients: Patients) -> Figure:
    """Return the area under the curve of covid19 against everything else, by its probability; a truth of -1 is another disease."""
    positive = truth == COVID
    return {
        "auc": figure(auc_interval(positive, probabilities(logits, 1.0)[:, COVID], patients)),
        "covid19": int(positive.sum()),
        "rest": int((~positive).sum()),
    }


def abstention(chances: Floats, truth: Ints, patients: Patients, answered: npt.NDArray[np.bool_]) -> Figure:
    """Return how often the model declines, how good the rest of its answers is, and how far its confidence is off.

    Args:
        chances: probabilities, shape (n, classes).
        truth: shape (n,), class indexes.
        patients: shape (n,).
        answered: shape (n,).
    """
    answer = np.asarray(chances.argmax(axis=1), dtype=np.int64)
    everyone = np.ones(len(truth), dtype=np.bool_)
    parts = {"all": everyone, "answered": answered, "declined": ~answered}
    return {
        "declined_share": round(float(1 - answered.mean()), 4),
        "expected_calibration_error": figure(interval(lambda w: calibration_error(chances, truth, weights=w), patients)),
        "accuracy": {
            name: figure(accuracy_interval(truth[part], answer[part], len(CLASSES), patients[part])) if part.any() else None
            for name, part in parts.items()
        },
    }


def coverage(chances: Floats, truth: Ints, patients: Patients, candidate: Floats) -> Figure:
    """Return the share of pictures whose class is in its conformal set, and the mean size of the sets."""
    inside = (chances[np.arange(len(truth)), truth] >= candidate).astype(np.float64)
    size = (chances >= candidate[:, np.newaxis]).sum(axis=1)
    return {"share": mean_of(inside, patients), "mean_size": round(float(size.mean()), 4)}


def mean_of(values: Floats, patients: Patients) -> Figure:
    """Return the mean of one number a picture."""
    return figure(interval(lambda weights: float(np.sum(weights * values) / np.sum(weights)), patients))


def confident(chosen: npt.NDArray[np.bool_], patients: Patients) -> Figure:
    """Return the share of pictures that are chosen."""
    return mean_of(chosen.astype(np.float64), patients)


def calibration_error(chances: Floats, truth: Ints, bins: int = 10, weights: Floats | None = None) -> float:
    """Return the gap between confidence and accuracy, averaged over equal bins of confidence by their share of pictures, 0..1.

    The expected calibration error of Naeini et al. 2015, "Obtaining well calibrated probabilities using Bayesian binning".
    """
    best = chances.max(axis=1)
    right = chances.argmax(axis=1) == truth
    place = np.minimum((best * bins).astype(np.int64), bins - 1)
    weight = np.ones(len(best)) if weights is None else weights
    gaps = np.bincount(place, weights=weight * (best - right), minlength=bins)
    return float(np.abs(gaps).sum() / weight.sum())


def agreement(first: Floats, second: Floats) -> Figure:
    """Return on how many pictures two models give the same class, and the largest difference of a logit."""
    same = first.argmax(axis=1) == second.argmax(axis=1)
    return {
        "pictures": len(same),
        "same_class": round(float(same.mean()), 4),
        "largest_logit_difference": round(float(np.abs(first - second).max()), 4),
    }


def patched(pixels: Pixels, gray: int) -> Pixels:
    """Return the pictures with the middle square, 61% of the area, of one gray value: nearly no lung is left."""
    side = pixels.shape[1]
    hole = round(side * _BLACK_SHARE**0.5)
    start = (side - hole) // 2
    result = pixels.copy()
    result[:, start : start + hole, start : start + hole] = gray
    return result


def fold_rows(logits: Floats, linear: Floats, truth: Ints, fold: Ints) -> list[Figure]:
    """Return the accuracy of both models for each fold."""
    rows = []
    for number in np.unique(fold):
        part = fold == number
        ours, theirs = (confusion(truth[part], np.asarray(s[part].argmax(axis=1)), len(CLASSES)) for s in (logits, linear))
        rows.append({"fold": int(number), "pictures": int(part.sum()), "accuracy": _short(ours), "linear": _short(theirs)})
    return rows


def _short(table: Floats) -> float:
    return round(accuracy(table), 4)
