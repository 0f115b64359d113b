"""Temperature, sets of classes and thresholds, of pictures that the network has not learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

ANSWERED = 0.8
"""Share of validation pictures that get an answer from a network without conformal sets; the least sure rest is referred."""

MISCOVERAGE = 0.15
"""Of the sets of classes that decide whether there is an answer."""

SENSITIVITIES = (0.90, 0.95)

HOTTEST = 10.0
"""The highest temperature that is tried: all probabilities are then nearly the same."""


@dataclass(frozen=True)
class Thresholds:
    """What turns logits into answers; see `edge.contract.bundle.Manifest`."""

    temperature: float
    candidate: float
    sensitivity: dict[str, dict[str, float]]


def fit_thresholds(
    logits: npt.NDArray[np.floating], truth: npt.NDArray[np.int64], classes: Sequence[str], miscoverage: float
) -> Thresholds:
    """Fit everything that is fitted on held-out pictures.

    Args:
        logits: shape (n, classes).
        truth: shape (n,), class indexes.
        classes: names in the order of the logits; one without pictures gets no threshold of sensitivity.
        miscoverage: see `fit_candidate`.
    """
    temperature = fit_temperature(logits, truth)
    chances = probabilities(logits, temperature)
    return Thresholds(
        temperature=temperature,
        candidate=fit_candidate(chances, truth, miscoverage),
        sensitivity={
            name: {f"{share:.2f}": sensitivity_threshold(chances, truth, target, share) for share in SENSITIVITIES}
            for target, name in enumerate(classes)
            if (truth == target).any()
        },
    )


def probabilities(logits: npt.NDArray[np.floating], temperature: float) -> Floats:
    """Return the softmax of logits / temperature; shape (n, classes)."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def fit_temperature(logits: npt.NDArray[np.floating], truth: npt.NDArray[np.int64]) -> float:
    """Return the temperature, 0.1 to 10, with the least negative log-likelihood.

    Guo et al. 2017, "On calibration of modern neural networks". One number, so a fine grid is enough.
    """
    grid = np.geomspace(0.1, HOTTEST, 401)
    rows = np.arange(len(truth))
    losses = [-np.mean(np.log(probabilities(logits, t)[rows, truth] + 1e-12)) for t in grid]
    return round(float(grid[int(np.argmin(losses))]), 4)


def fit_candidate(chances: Floats, truth: npt.NDArray[np.int64], miscoverage: float) -> float:
    """Return the probability from which a class is in the conformal set, 0..1.

    If the chances are of one network and of pictures that it has not learned from, sets of all classes of at least this probability
    hold the true class for a share of 1 - miscoverage of new pictures of the same kind, whatever the network (Sadinle, Lei and
    Wasserman 2019, "Least ambiguous set-valued classifiers with bounded error levels"). If they are of several, each of which has
    left a part out, that is to be expected and to be measured, and no theorem.

    Args:
        chances: shape (n, classes), of held-out pictures.
        truth: shape (n,), class indexes.
        miscoverage: share of pictures whose class may be outside.
    """
    scores = np.sort(1 - chances[np.arange(len(truth)), truth])
    rank = int(np.ceil((len(scores) + 1) * (1 - miscoverage)))
    return round(float(1 - scores[rank - 1]), 6) if rank <= len(scores) else 0.0


def sensitivity_threshold(chances: Floats, truth: npt.NDArray[np.int64], target: int, sensitivity: float) -> float:
    """Return the highest probability of a class from which at least this share of its held-out pictures is found.

    Args:
        chances: shape (n, classes).
        truth: shape (n,), class indexes.
        target: the class.
        sensitivity: 0..1.

    Returns:
        0..1; 0 if there is no picture of the class.
    """
    positive = np.sort(chances[truth == target, target])
    missed = int(np.floor(len(positive) * (1 - sensitivity) + 1e-9))
    return round(float(positive[missed]), 6) if missed < len(positive) else 0.0


def fit_threshold(logits: npt.NDArray[np.floating], temperature: float, answered: float = ANSWERED) -> float:
    """Return the highest probability below which the least sure pictures fall, so that the share `answered` gets an answer."""
    best = probabilities(logits, temperature).max(axis=1)
    return round(float(np.quantile(best, 1 - answered)), 4)
