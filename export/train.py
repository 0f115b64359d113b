"""Training of our network's reader, on what its eyes see of the pictures (`export.views`).

The reader is linear, and so is the mean of what it says over a picture once it is known where the lungs are. First the lung map is
fitted to the masks (logistic regression, cell by cell), then the signs to the classes (multinomial logistic regression on features
averaged over the lungs). Both problems have one solution, which does not depend on a seed, and are solved in seconds. The signs of
each class are less by their mean over the classes (the softmax stays the same): the heat of a class then is what speaks for it
rather than for the average of all.

Rounding is learned with the rest. The eyes' int8 file and their float network see a picture slightly differently, and the signs pay
for every logit that differs: directions in which int8 is noisy get small weights (as in Bishop 1995, "Training with noise is
equivalent to Tikhonov regularization", with the noise measured instead of assumed).

They pay for the place that a picture comes from as well. All that is known here of covid19 comes from one source and nearly all
else from another, and signs of the source would do for signs of the disease. Where a class is there from several sources, its
logits should be the same on average (the linear kernel's case of Gretton et al. 2012, "A kernel two-sample test", class by class).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from export.augment import Strength
from export.compress.rounding import on_grid
from export.networks.ours import reader
from export.views import Views

Floats = npt.NDArray[np.float64]
Loss = Callable[[Floats], tuple[float, Floats]]
"""Takes a point, shape (k,), to the value there and its gradient, shape (k,)."""
Curvature = Callable[[Floats], Floats]
"""Takes a point to the matrix of second derivatives there, or to a larger positive definite one, shape (k, k)."""

_LEAST_SPREAD = 1e-3
_FREE = 10.0
"""How much less the constant of the signs is held back than their weights."""
_MOST_CELLS = 60_000
_STEPS = 100
_CLOSE = 1e-9
"""A step that promises less than this share of the loss is not taken."""
_SHORTEST = 1e-3
_CEILING = 2.0
"""The curvature is nowhere more than c / 2 times that of c equal chances: enough for four classes."""


@dataclass(frozen=True)
class Recipe:
    """Everything that the result of a training depends on, besides the data.

    views: of each picture. plain: share of the first view, the picture as it is, in what a picture weighs; the other views share
    the rest. emptied: what a picture without a middle weighs, one as it is being 1. strictness: weight of the classes against small
    weights. steadiness: weight of equal logits in float and int8 against that of the classes. indifference: weight of equal mean
    logits of a class in all sources that have it, likewise. seed: of the views and of the cells.
    """

    strength: Strength = field(default_factory=Strength)
    views: int = 3
    plain: float = 0.6
    emptied: float = 0.1
    strictness: float = 30.0
    steadiness: float = 10.0
    indifference: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Lesson:
    """Which pictures a reader learns from.

    views: of all pictures. allowed: shape (n, classes), 1 for each class that a picture may be; all 1 teaches nothing of classes.
    masked: shape (n,); whether its lungs are known. source: shape (n,), a number for each. chosen: indexes.
    """

    views: Views
    allowed: npt.NDArray[np.float32]
    masked: npt.NDArray[np.bool_]
    source: npt.NDArray[np.int64]
    chosen: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Start:
    """What a training goes on from.

    reader: it is not changed; its lung map stays. pull: what the squares of the changes of its signs cost, measured where all
    features vary alike.
    """

    reader: Any
    pull: float


@dataclass(frozen=True)
class _Examples:
    """What the signs learn from.

    features: shape (n, features). wanted: shape (n, classes). open: shape (n,); whether wanted lists what a picture may be (the
    probability of all of these counts), or says the probabilities themselves. weight: shape (n,).
    """

    features: Floats
    wanted: Floats
    open: npt.NDArray[np.bool_]
    weight: Floats


def train(lesson: Lesson, recipe: Recipe, start: Start | None = None) -> Any:
    """Return a trained reader (see `export.networks.ours.reader`); without a start, its signs are held back towards 0."""
    views = lesson.views
    if start is None:
        weights, bias = _find_lungs(lesson, np.random.default_rng(recipe.seed))
    else:
        weights, (bias,) = (value.astype(np.float64).ravel() for value in start.reader.get_layer("lungs").get_weights())
    taught = lesson.chosen[(lesson.allowed[lesson.chosen] == 0).any(axis=1)]

    def seen(features: npt.NDArray[np.float16]) -> Floats:
        return _over_lungs(features, weights, bias)

    plain, changed = seen(views.features[0, taught]), [seen(view[taught]) for view in views.features[1:]]
    exact = [seen(view[taught]) for view in views.exact]
    emptied = seen(views.emptied[taught])
    scale = plain.std(axis=0) + _LEAST_SPREAD
    scale *= np.sqrt(len(scale))
    scale[-1] = plain[:, -1].mean() / _FREE + _LEAST_SPREAD
    rest = (1 - recipe.plain) / len(changed) if changed else 0.0
    shares = [recipe.plain / 2, recipe.plain / 2, *[rest] * len(changed), recipe.emptied]
    wanted, classes = lesson.allowed[taught].astype(np.float64), lesson.allowed.shape[1]
    parts = [plain, exact[0], *changed]
    alike = _every_class_alike(wanted)
    examples = _Examples(
        features=np.concatenate([*parts, emptied]) / scale,
        wanted=np.concatenate([*[wanted] * len(parts), np.full(wanted.shape, 1 / classes)]),
        open=np.repeat([*[True] * len(parts), False], len(taught)),
        weight=np.concatenate([*[share * alike for share in shares[:-1]], np.full(len(taught), shares[-1])]),
    )
    lost = np.concatenate([int8 - float32 for int8, float32 in zip([plain, *changed], exact, strict=False)])
    apart = _between_sources(plain, wanted, lesson.source[taught])
    alien = np.concatenate([np.sqrt(recipe.steadiness / len(exact)) * lost, np.sqrt(recipe.indifference) * apart]) / scale
    before = np.zeros((len(scale), classes)) if start is None else _signs_of(start.reader) * scale[:, np.newaxis]
    problem = _sign_problem(examples, alien, recipe.strictness, before, 1.0 if start is None else start.pull)
    signs = _descend(*problem, before) / scale[:, np.newaxis]
    signs = _on_grid(signs - signs.mean(axis=1, keepdims=True), plain)
    model = reader(classes, views.features.shape[2])
    model.get_layer("lungs").set_weights([weights[np.newaxis, np.newaxis, :, np.newaxis], np.array([bias])])
    model.get_layer("signs").set_weights([signs[np.newaxis, np.newaxis, :-1], signs[-1]])
    return model


def _signs_of(reader: Any) -> Floats:
    kernel, bias = reader.get_layer("signs").get_weights()
    return np.concatenate([kernel[0, 0], bias[np.newaxis]]).astype(np.float64)


def _on_grid(signs: Floats, seen: Floats) -> Floats:
    """Return signs whose weights are whole int8 steps, the logits of the pictures `seen` changed as little as can be."""
    kernel = on_grid(signs[:-1], seen[:, :-1].T @ seen[:, :-1] / len(seen))
    lost = seen[:, :-1] @ (signs[:-1] - kernel)
    return np.concatenate([kernel, signs[-1:] + lost.mean(axis=0, keepdims=True) / seen[:, -1].mean()])


def _every_class_alike(allowed: Floats) -> Floats:
    """Return weights of pictures, 1 on average, by which every class weighs the same.

    How many pictures of a class there are says what was collected, not what will come. A picture of several possible classes counts
    for each in part.
    """
    shares = allowed / allowed.sum(axis=1, keepdims=True)
    each = shares @ (1 / np.maximum(shares.sum(axis=0), 1.0))
    return np.asarray(each * len(each) / each.sum())


def _find_lungs(lesson: Lesson, rng: np.random.Generator) -> tuple[Floats, float]:
    """Return weights, shape (channels,), whole int8 steps, and bias of the lung map's logits."""
    masked = lesson.chosen[lesson.masked[lesson.chosen]]
    cells = lesson.views.features[:, masked].reshape(-1, lesson.views.features.shape[-1])
    share = lesson.views.lungs[:, masked].reshape(-1)
    drawn = rng.choice(len(cells), min(len(cells), _MOST_CELLS), replace=False)
    given, wanted = cells[drawn].astype(np.float64), share[drawn].astype(np.float64)
    given = np.concatenate([given, np.ones((len(given), 1))], axis=1)
    price = np.append(np.ones(given.shape[1] - 1), 0.0)  # the bias is free

    def loss(flat: Floats) -> tuple[float, Floats]:
        logits = given @ flat
        value = np.sum(np.logaddexp(0, logits) - wanted * logits) + 0.5 * price @ flat**2
        return float(value), given.T @ (1 / (1 + np.exp(-logits)) - wanted) + price * flat

    def curvature(flat: Floats) -> Floats:
        spread = 0.5 / (1 + np.cosh(given @ flat))
        return np.asarray(given.T @ (spread[:, np.newaxis] * given) + np.diag(price + _LEAST_SPREAD))

    found = _descend(loss, curvature, np.zeros(given.shape[1]))
    weights = on_grid(found[:-1, np.newaxis], given[:, :-1].T @ given[:, :-1] / len(given))[:, 0]
    shift = float(np.mean(given[:, :-1] @ (found[:-1] - weights)))
    return weights, float(found[-1]) + shift


def _over_lungs(features: npt.NDArray[np.float16], weights: Floats, bias: float) -> Floats:
    """Return the means of features times lung map, and of the lung map itself; shape (n, channels + 1).

    The logits are these times the weights and the constants of the signs.
    """
    rows = []
    for picture in features:
        cells = picture.reshape(-1, picture.shape[-1]).astype(np.float64)
        lungs = 1 / (1 + np.exp(-(cells @ weights + bias)))
        rows.append(np.append(lungs @ cells, lungs.sum()) / len(cells))
    return np.stack(rows)


def _between_sources(features: Floats, wanted: Floats, source: npt.NDArray[np.int64]) -> Floats:
    """Return how far the sources of each class lie from their middle, shape (rows, features); means of few count little."""
    rows = [np.zeros(features.shape[1])]
    for column in range(wanted.shape[1]):
        certain = (wanted[:, column] > 0) & (wanted.sum(axis=1) == 1)
        codes, sizes = np.unique(source[certain], return_counts=True)
        means = [features[certain & (source == code)].mean(axis=0) for code in codes]
        rows += [np.sqrt(sizes.min()) * (mean - np.mean(means, axis=0)) for mean in means]
    return np.stack(rows)


def _sign_problem(examples: _Examples, alien: Floats, strictness: float, before: Floats, pull: float) -> tuple[Loss, Curvature]:
    """Return the negative log-likelihood of signs, penalized for what they say to `alien` and for their distance from `before`."""
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


def _descend(loss: Loss, curvature: Curvature, start: Floats) -> Floats:
    """Return where the loss of a regression is least, in the shape of `start`: Newton's steps, halved until they lead down.

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
