"""Training of our network's reader, on what its eyes see of the pictures (`export.views`).

The reader is linear, and so is the mean of what it says over a picture once it is known where the lungs are. First the lung map is
fitted to the masks (logistic regression, cell by cell), then the signs to the classes (multinomial logistic regression on features
averaged over the lungs). Both are solved in seconds, and the seed only draws the cells of the first. The signs of each class are
less by their mean over the classes (the softmax stays the same): the heat of a class then is what speaks for it rather than for the
average of all.

Rounding is learned with the rest. The eyes' int8 file and their float network see a picture slightly differently, and the signs pay
for every logit that differs: directions in which int8 is noisy get small weights (as in Bishop 1995, "Training with noise is
equivalent to Tikhonov regularization", with the noise measured instead of assumed).

They pay for the place that a picture comes from as well. All that is known here of covid19 comes from one source and nearly all
else from another, and signs of the source would do for signs of the disease. Where a class is there from several sources, its
logits should be the same on average (the linear kernel's case of Gretton et al. 2012, "A kernel two-sample test", class by class).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from export.augment import Strength
from export.compress.rounding import on_grid
from export.networks.ours import reader
from export.regression import Examples, binary, descend, multinomial
from export.views import Views

Floats = npt.NDArray[np.float64]

_LEAST_SPREAD = 1e-3
_FREE = 10.0
"""How much less the constant of the signs is held back than their weights."""
_MOST_CELLS = 60_000


@dataclass(frozen=True)
class Recipe:
    """Everything that the result of a training depends on, besides the data.

    views: of each picture. plain: share of the first view, the picture as it is, in what a picture weighs; the other views share
    the rest. emptied: what a picture without a middle weighs, one as it is being 1. strictness: weight of the classes against small
    weights. steadiness: weight of equal logits in float and int8 against that of the classes. indifference: weight of equal mean
    logits of a class in all sources that have it, likewise. seed: of the cells that teach the lung map.
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
class Lungs:
    """A lung map: the logits of a cell are its features times weights, shape (channels,), whole int8 steps, plus bias."""

    weights: Floats
    bias: float


@dataclass(frozen=True)
class Pooled:
    """What n pictures that teach a class give a reader with a known lung map: means of features over the lungs, (n, channels + 1).

    plain: of pictures as they are. exact: one array for each view of which it is known what float eyes see. changed: one for each
    other view. emptied: of pictures without a middle. allowed, source: see `Lesson`.
    """

    plain: Floats
    exact: tuple[Floats, ...]
    changed: tuple[Floats, ...]
    emptied: Floats
    allowed: Floats
    source: npt.NDArray[np.int64]

    def only(self, rows: npt.NDArray[np.int64]) -> Pooled:
        """Return some of the pictures."""
        exact, changed = (tuple(part[rows] for part in parts) for parts in (self.exact, self.changed))
        return Pooled(self.plain[rows], exact, changed, self.emptied[rows], self.allowed[rows], self.source[rows])


def left_out(seen: Pooled, hands: npt.NDArray[np.int64], recipe: Recipe, near: Floats, start: Start | None = None) -> Floats:
    """Return the logits of every picture as it is, shape (n, classes), by signs learned from the pictures of all other hands.

    Fewer pictures speak up less against what holds the signs back, so they count more: logits of the same size are wanted.

    Args:
        seen: of n pictures.
        hands: shape (n,); all pictures of a patient in one.
        recipe: of the training.
        near: see `find_signs`.
        start: see `find_signs`.
    """
    logits = np.zeros(seen.allowed.shape)
    for hand in np.unique(hands):
        out, rest = np.flatnonzero(hands == hand), np.flatnonzero(hands != hand)
        louder = replace(recipe, strictness=recipe.strictness * len(hands) / len(rest))
        logits[out] = seen.plain[out] @ find_signs(seen.only(rest), louder, start, near)
    return logits


def as_reader(lungs: Lungs, signs: Floats, rows: int) -> Any:
    """Return the reader of a lung map and signs, shape (channels + 1, classes), for maps of this many rows."""
    model = reader(signs.shape[1], rows)
    model.get_layer("lungs").set_weights([lungs.weights[np.newaxis, np.newaxis, :, np.newaxis], np.array([lungs.bias])])
    model.get_layer("signs").set_weights([signs[np.newaxis, np.newaxis, :-1], signs[-1]])
    return model


def lungs_of(reader: Any) -> Lungs:
    """Return the lung map of a reader."""
    weights, (bias,) = (value.astype(np.float64).ravel() for value in reader.get_layer("lungs").get_weights())
    return Lungs(weights, float(bias))


def look(lesson: Lesson, lungs: Lungs) -> Pooled:
    """Return what the pictures of `teaching` give."""
    views, taught = lesson.views, teaching(lesson)
    return Pooled(
        plain=_over_lungs(views.features[0, taught], lungs),
        exact=tuple(_over_lungs(view[taught], lungs) for view in views.exact),
        changed=tuple(_over_lungs(view[taught], lungs) for view in views.features[1:]),
        emptied=_over_lungs(views.emptied[taught], lungs),
        allowed=lesson.allowed[taught].astype(np.float64),
        source=lesson.source[taught],
    )


def teaching(lesson: Lesson) -> npt.NDArray[np.int64]:
    """Return the indexes of the chosen pictures that teach something of classes, in their order."""
    return np.asarray(lesson.chosen[(lesson.allowed[lesson.chosen] == 0).any(axis=1)])


def find_signs(seen: Pooled, recipe: Recipe, start: Start | None = None, near: Floats | None = None) -> Floats:
    """Return weights, whole int8 steps, and constants of the signs, shape (channels + 1, classes).

    Without a start they are held back towards 0. near: signs to begin the search at; where many pictures leave their class open,
    there may be several least points, and the one that is near is wanted.
    """
    n, classes = seen.allowed.shape
    scale = seen.plain.std(axis=0) + _LEAST_SPREAD
    scale *= np.sqrt(len(scale))
    scale[-1] = seen.plain[:, -1].mean() / _FREE + _LEAST_SPREAD
    rest = (1 - recipe.plain) / len(seen.changed) if seen.changed else 0.0
    shares = [recipe.plain / 2, recipe.plain / 2, *[rest] * len(seen.changed), recipe.emptied]
    parts = [seen.plain, seen.exact[0], *seen.changed]
    alike = _every_class_alike(seen.allowed)
    examples = Examples(
        features=np.concatenate([*parts, seen.emptied]) / scale,
        wanted=np.concatenate([*[seen.allowed] * len(parts), np.full(seen.allowed.shape, 1 / classes)]),
        open=np.repeat([*[True] * len(parts), False], n),
        weight=np.concatenate([*[share * alike for share in shares[:-1]], np.full(n, shares[-1])]),
    )
    lost = np.concatenate([int8 - float32 for int8, float32 in zip([seen.plain, *seen.changed], seen.exact, strict=False)])
    apart = _between_sources(seen.plain, seen.allowed, seen.source)
    alien = np.concatenate([np.sqrt(recipe.steadiness / len(seen.exact)) * lost, np.sqrt(recipe.indifference) * apart]) / scale
    before = np.zeros((len(scale), classes)) if start is None else signs_of(start.reader) * scale[:, np.newaxis]
    problem = multinomial(examples, alien, recipe.strictness, before, 1.0 if start is None else start.pull)
    signs = descend(*problem, before if near is None else near * scale[:, np.newaxis]) / scale[:, np.newaxis]
    return _on_grid(signs - signs.mean(axis=1, keepdims=True), seen.plain)


def find_lungs(lesson: Lesson, recipe: Recipe) -> Lungs:
    """Return the lung map that the masks of the chosen pictures teach."""
    masked = lesson.chosen[lesson.masked[lesson.chosen]]
    cells = lesson.views.features[:, masked].reshape(-1, lesson.views.features.shape[-1])
    share = lesson.views.lungs[:, masked].reshape(-1)
    drawn = np.random.default_rng(recipe.seed).choice(len(cells), min(len(cells), _MOST_CELLS), replace=False)
    given, wanted = cells[drawn].astype(np.float64), share[drawn].astype(np.float64)
    found = descend(*binary(np.concatenate([given, np.ones((len(given), 1))], axis=1), wanted), np.zeros(given.shape[1] + 1))
    weights = on_grid(found[:-1, np.newaxis], given.T @ given / len(given))[:, 0]
    return Lungs(weights, float(found[-1]) + float(np.mean(given @ (found[:-1] - weights))))


def signs_of(reader: Any) -> Floats:
    """Return the signs of a reader as `find_signs` does."""
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


def _over_lungs(features: npt.NDArray[np.float16], known: Lungs) -> Floats:
    """Return the means of features times lung map, and of the lung map itself; shape (n, channels + 1).

    The logits are these times the weights and the constants of the signs.
    """
    rows = []
    for picture in features:
        cells = picture.reshape(-1, picture.shape[-1]).astype(np.float64)
        lungs = 1 / (1 + np.exp(-(cells @ known.weights + known.bias)))
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
