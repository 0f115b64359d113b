"""Class biases, temperature and abstention threshold, all from validation patients only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

Floats = npt.NDArray[np.float64]

ANSWERED = 0.8
"""Share of validation pictures that get an answer; the least sure rest is referred to a radiologist."""


def probabilities(logits: npt.NDArray[np.floating], temperature: float) -> Floats:
    """Return the softmax of logits / temperature; shape (n, classes)."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def fit_temperature(logits: npt.NDArray[np.floating], truth: npt.NDArray[np.int64]) -> float:
    """Return the temperature, 0.1 to 10, with the least negative log-likelihood.

    Guo et al. 2017, "On calibration of modern neural networks". One number, so a fine grid is enough.
    """
    grid = np.geomspace(0.1, 10, 401)
    rows = np.arange(len(truth))
    losses = [-np.mean(np.log(probabilities(logits, t)[rows, truth] + 1e-12)) for t in grid]
    return round(float(grid[int(np.argmin(losses))]), 4)


def fit_biases(logits: npt.NDArray[np.floating], truth: npt.NDArray[np.int64]) -> Floats:
    """Return one number a class, with sum 0, that is to be added to the logits.

    Training draws the groups more evenly than they come, and is short: the network ranks well and leans to one class. The biases
    and one common slope minimise the negative log-likelihood: vector scaling (Guo et al. 2017) with equal slopes. Only the biases
    are returned; `fit_temperature` finds the slope again.

    Args:
        logits: shape (n, classes).
        truth: shape (n,), class indexes.
    """
    values = logits.astype(np.float64)
    classes = values.shape[1]
    rows = np.arange(len(truth))

    def loss(parameters: Floats) -> float:
        shifted = values + (parameters[:classes] - parameters[:classes].mean())
        return float(-np.mean(np.log(probabilities(shifted, float(np.exp(parameters[classes])))[rows, truth] + 1e-12)))

    found = minimize(loss, np.zeros(classes + 1), method="L-BFGS-B", bounds=[(-5, 5)] * classes + [(-2, 2)]).x[:classes]
    return np.asarray(found - found.mean())


def fit_threshold(logits: npt.NDArray[np.floating], temperature: float, answered: float = ANSWERED) -> float:
    """Return the highest probability below which the least sure pictures fall, so that the share `answered` gets an answer."""
    best = probabilities(logits, temperature).max(axis=1)
    return round(float(np.quantile(best, 1 - answered)), 4)
