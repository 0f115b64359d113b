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
"""Takes a point to the matrix of second derivatives there, shape (k, k), or to a stand-in for it."""
Problem = tuple[Loss, tuple[Curvature, ...]]
"""Of the curvatures the first is exact, and the last is the same everywhere and nowhere exceeded."""

_STEPS = 100
_CLOSE = 1e-7
"""A step that promises less than this share of the loss is not taken."""
_SHORTEST = 1e-3
_LEAST = 1e-3
"""Is added to the curvature of what costs nothing, so that it can be divided by."""


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

    return loss, (curvature, lambda flat: curvature(np.zeros_like(flat)))


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

    def second(spread: Callable[[int, int], Floats]) -> Floats:
        result = np.zeros((features, classes, features, classes))
        for one in range(classes):
            for other in range(one, classes):
                block = given.T @ ((examples.weight * spread(one, other))[:, np.newaxis] * given)
                result[:, one, :, other] = result[:, other, :, one] = block + unwelcome if one == other else block
        return strictness * result.reshape(before.size, before.size) + pull * np.eye(before.size)

    def certain(flat: Floats) -> Floats:
        chances = chances_of(flat.reshape(before.shape))
        return second(lambda one, other: _spread(chances, one, other))

    def curvature(flat: Floats) -> Floats:
        # Where several classes are possible, as much is not to be learned as they vary among themselves.
        chances = chances_of(flat.reshape(before.shape))
        left = np.where(open_, chances * wanted, 0.0)
        left /= left.sum(axis=1, keepdims=True) + 1e-300
        return second(lambda one, other: _spread(chances, one, other) - _spread(left, one, other))

    def ceiling(flat: Floats) -> Floats:
        # Bohning 1992, "Multinomial logistic regression algorithm".
        return second(lambda one, other: np.full(len(given), ((one == other) - 1 / classes) / 2))

    return loss, (curvature, certain, ceiling)


def _spread(chances: Floats, one: int, other: int) -> Floats:
    return np.asarray(chances[:, one] * ((one == other) - chances[:, other]))


def descend(loss: Loss, curvatures: tuple[Curvature, ...], start: Floats) -> Floats:
    """Return where the loss of a problem above is least, in the shape of `start`: Newton's steps, halved until they lead down.

    Where all pictures are far on one side there is hardly any curvature, and Newton's steps lead anywhere; where the classes of
    many are left open it may be negative. The next of the curvatures is taken then; with the last, every step leads down.
    """
    from scipy.linalg import LinAlgError, cho_factor, cho_solve

    place = start.ravel()
    value, slope = loss(place)
    for _ in range(_STEPS):
        for curvature in curvatures:
            try:
                step = cho_solve(cho_factor(curvature(place)), slope)
            except LinAlgError:
                continue
            promised, length = float(slope @ step), 1.0
            if promised <= _CLOSE * abs(value):
                return np.asarray(place.reshape(start.shape))
            while (found := loss(place - length * step))[0] > value - 1e-4 * length * promised and length > _SHORTEST:
                length /= 2
            if length > _SHORTEST:
                break
        place, (value, slope) = place - length * step, found
    return np.asarray(place.reshape(start.shape))
