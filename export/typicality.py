"""What a network has learned, so that a device can tell a picture of another kind; `edge.network.typicality` measures it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edge.network.typicality import Typicality

Traits = npt.NDArray[np.float32]
"""Shape (n, traits), the third output of the int8 graph."""

_STEPS = 200
"""How many of the held-out distances a bundle carries; a typicality is exact to half a percent."""


def crossed_typicality(learned: Traits, kinds: npt.NDArray[np.int64], hands: npt.NDArray[Any], limit: float) -> Typicality:
    """Measure the usual, and what distances are usual by leaving each hand out in turn: the jackknife, patient by patient.

    No picture is given away for the distances, and there are as many of them as there are pictures. That known pictures fall below
    the limit as often as it says then is no theorem (Barber et al. 2021, "Predictive inference with the jackknife+", say where it
    fails); the report counts it. Hands of several patients make the covariance that of fewer pictures, which is shrunk further:
    with hands of a fifth 0.19 fell instead of 0.15 (simulated with the covariance of version 0.4.0; with that of 0.5.0, 0.16).

    Args:
        learned: of the training pictures.
        kinds: shape (n,), codes of the sources.
        hands: shape (n,); all pictures of a patient in one, best one for each.
        limit: see `edge.network.typicality.Typicality`.
    """
    distances = np.zeros(len(learned))
    for hand in np.unique(hands):
        rest, out = hands != hand, np.flatnonzero(hands == hand)
        measure = _measure(learned[rest], kinds[rest], limit)
        distances[out] = [measure.distance(row) for row in learned[out]]
    return _usual(_measure(learned, kinds, limit), distances)


def fit_typicality(learned: Traits, kinds: npt.NDArray[np.int64], held_out: Traits, limit: float) -> Typicality:
    """Measure the usual.

    Args:
        learned: of the training pictures.
        kinds: shape (n,), codes of the sources; every source counts alike in the mean and the covariance, however many pictures
            of it there are.
        held_out: of pictures of other patients, from the same sources.
        limit: see `edge.network.typicality.Typicality`.
    """
    return with_distances(_measure(learned, kinds, limit), held_out)


def _measure(learned: Traits, kinds: npt.NDArray[np.int64], limit: float) -> Typicality:
    """Return a measure without distances.

    The covariance is shrunk towards a diagonal (Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional
    covariance matrices"), since there are not many more pictures than traits.
    """
    from sklearn.covariance import LedoitWolf

    scale = learned.std(axis=0) + 1e-6
    codes, sizes = np.unique(kinds, return_counts=True)
    smallest = int(sizes.min())
    rng = np.random.default_rng(0)
    even = np.concatenate([rng.permutation(np.flatnonzero(kinds == code))[: 4 * smallest] for code in codes])
    values = (learned[even] / scale).astype(np.float64)
    mean = np.mean([values[kinds[even] == code].mean(axis=0) for code in codes], axis=0)
    precision = LedoitWolf(assume_centered=True).fit(values - mean).precision_
    whitening = np.linalg.cholesky(precision).T / scale
    return Typicality((mean * scale).astype(np.float32), whitening.astype(np.float32), (1.0,), limit)


def with_distances(measure: Typicality, held_out: Traits) -> Typicality:
    """Return the same measure with what is usual for these pictures, of which it has learned nothing."""
    return _usual(measure, np.array([measure.distance(row) for row in held_out]))


def _usual(measure: Typicality, distances: npt.NDArray[np.float64]) -> Typicality:
    distances = np.sort(distances)
    if len(distances) > _STEPS:
        distances = np.quantile(distances, (np.arange(_STEPS) + 0.5) / _STEPS)
    return Typicality(measure.mean, measure.whitening, tuple(round(float(d), 4) for d in distances), measure.limit)
