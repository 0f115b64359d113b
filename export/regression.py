"""The two regressions that a reader is made of, solved exactly (see `export.train` for what they are given)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Loss = Callable[[Floats], tuple[float, Floats]]
"""Takes a point, shape (k,), to the value there and its gradient, shape (k,)."""
Curvature = Callable[[Floats], Floats]
"""Takes a point to the matrix of second derivatives there, or to a larger positive definite one, shape (k, k)."""
Problem = tuple[Loss, Curvature]

_STEPS = 100
_CLOSE = 1e-9
"""A step that promises less than this share of the loss is not taken."""
_SHORTEST = 1e-3
_LEAST = 1e-3
"""Is added to the curvature of what costs nothing, so that it can be divided by."""
_CEILING = 2.0
"""The curvature is nowhere more than c / 2 times that of c equal chances: enough for four classes."""


@dataclass(frozen=True)
class Examples:
    """What a multinomial regression learns from.

    features: shape (n, features). wanted: shape (n, classes). open: shape (n,); whether wanted lists what a picture may be (the
    probability of all of these counts), or says the probabilities themselves. weight: shape (n,).
    """

    features: Floats
    wanted: Floats
    open: npt.NDArray[np.bool_]
    weight: Floats


def binary(given: Floats, wanted: Floats) -> Problem:
    """Return the logistic regression of wanted, shape (n,), 0..1, on given, shape (n, k), whose last column is 1 and free."""
    price = np.append(np.ones(given.shape[1] - 1), 0.0)

    def loss(flat: Floats) -> tuple[float, Floats]:
        logits = given @ flat
        value = np.sum(np.logaddexp(0, logits) - wanted * logits) + 0.5 * price @ flat**2
        return float(value), given.T @ (1 / (1 + np.exp(-logits)) - wanted) + price * flat

    def curvature(flat: Floats) -> Floats:
        spread = 0.5 / (1 + np.cosh(given @ flat))
        return np.asarray(given.T @ (spread[:, np.newaxis] * given) + np.diag(price + _LEAST))

    return loss, curvature


def multinomial(examples: Examples, alien: Floats, strictness: float, before: Floats, pull: float) -> Problem:
    """Return the negative log-likelihood of signs, penalized for what they say to `alien` and for their distance from `before`.

    Args:
        examples: n of them, k features.
        alien: shape (m, k), what should give equal logits for all classes.
        strictness: weight of the likelihood and of what is said to `alien`.
        before: shape (k, classes).
        pull: weight of the squares of the changes from `before`.
    """
    given, wanted, open_ = examples.features, examples.wanted, examples.open[:, np.newaxis]
    features, classes = before.shape
    unwelcome = alien.T @ alien

    def chances_of(signs: Floats) -> Floats:
        logits = given @ signs
        logits = logits - logits.max(axis=1, keepdims=True)
        return np.asarray(np.exp(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))))

    def loss(flat: Floats) -> tuple[float, Floats]:
        signs = flat.reshape(before.shape)
        chances = chances_of(signs)
        likely = (chances * wanted).sum(axis=1, keepdims=True) + 1e-300
        fit = np.where(open_, -np.log(likely), -(wanted * np.log(chances + 1e-300)).sum(axis=1, keepdims=True))
        target = np.where(open_, chances * wanted / likely, wanted)
        heard = unwelcome @ signs
        moved = signs - before
        value = strictness * (examples.weight @ fit[:, 0] + 0.5 * np.sum(signs * heard)) + 0.5 * pull * np.sum(moved**2)
        slope = strictness * (given.T @ (examples.weight[:, np.newaxis] * (chances - target)) + heard) + pull * moved
        return float(value), slope.ravel()

    def curvature(flat: Floats) -> Floats:
        # As if each picture's class were certain: where it is not, the true one is less.
        chances = chances_of(flat.reshape(before.shape))
        result = np.zeros((features, classes, features, classes))
        for one in range(classes):
            for other in range(one, classes):
                spread = examples.weight * chances[:, one] * ((one == other) - chances[:, other])
                block = given.T @ (spread[:, np.newaxis] * given)
                result[:, one, :, other] = result[:, other, :, one] = block + unwelcome if one == other else block
        return strictness * result.reshape(before.size, before.size) + pull * np.eye(before.size)

    return loss, curvature


def descend(loss: Loss, curvature: Curvature, start: Floats) -> Floats:
    """Return where the loss of a problem above is least, in the shape of `start`: Newton's steps, halved until they lead down.

    Where all pictures are far on one side there is hardly any curvature, and Newton's steps lead anywhere. There the curvature in 0
    is taken, twice, which is nowhere exceeded (Bohning 1992, "Multinomial logistic regression algorithm").
    """
    from scipy.linalg import cho_factor, cho_solve

    place = start.ravel()
    value, slope = loss(place)
    for _ in range(_STEPS):
        step = cho_solve(cho_factor(curvature(place)), slope)
        promised = float(slope @ step)
        if promised <= _CLOSE * abs(value):
            break
        length = 1.0
        while (found := loss(place - length * step))[0] > value - 1e-4 * length * promised and length > _SHORTEST:
            length /= 2
        if length <= _SHORTEST:
            length, step = 1.0, cho_solve(cho_factor(_CEILING * curvature(np.zeros_like(place))), slope)
            found = loss(place - step)
        place, (value, slope) = place - length * step, found
    return np.asarray(place.reshape(start.shape))
