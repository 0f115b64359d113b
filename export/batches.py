"""The pictures of one epoch of a recipe: in random order, balanced, changed at random, as a `tf.data` pipeline.

Everything random comes from (seed, epoch), so that a training that was killed goes on as if nothing had been.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from export.legacy_keras import tf
from export.recipe import Augmentation, Recipe
from export.splits import Indexes

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Pictures:
    """pixels: (n, side, side), uint8, perhaps mapped from a file. targets: (n,), class indexes. classes: how many."""

    pixels: npt.NDArray[np.uint8]
    targets: npt.NDArray[np.int64]
    classes: int

    def part(self, indexes: Indexes) -> Pictures:
        """Return some of them, in memory."""
        return Pictures(self.pixels[indexes], self.targets[indexes], self.classes)


def steps_of(targets: npt.NDArray[np.int64], recipe: Recipe) -> int:
    """Return how many batches an epoch has. What is left over of an epoch's order waits for another one's."""
    pictures = int(np.bincount(targets).max()) * len(np.unique(targets)) if recipe.balance == "oversample" else len(targets)
    return max(pictures // recipe.batch, 1)


def epoch_batches(pictures: Pictures, train: Indexes, recipe: Recipe, channels: int, epoch: int) -> Any:
    """Return a `tf.data.Dataset` of (input, one-hot label, weight), batches of (b, side, side, channels), (b, classes), (b,).

    Args:
        pictures: of all parts.
        train: which of them are learned from.
        recipe: how.
        channels: the gray value is repeated that often. Inputs are float32, 0..1.
        epoch: from 0 on, the frozen ones counted.
    """
    side = pictures.pixels.shape[1]
    signature = (
        tf.TensorSpec((None, side, side), tf.uint8),
        tf.TensorSpec((None, 8), tf.float32),
        tf.TensorSpec((None,), tf.bool),
        tf.TensorSpec((None, pictures.classes), tf.float32),
        tf.TensorSpec((None,), tf.float32),
    )
    drawn = tf.data.Dataset.from_generator(lambda: _draw(pictures, train, recipe, epoch), output_signature=signature)

    def ready(pixels: Any, moves: Any, flips: Any, labels: Any, weights: Any) -> Any:
        return tf.repeat(changed(pixels, moves, flips), channels, axis=3), labels, weights

    steps = steps_of(pictures.targets[train], recipe)
    # Its length is told, because a pipeline of a Python generator does not know it.
    return drawn.map(ready).apply(tf.data.experimental.assert_cardinality(steps)).prefetch(2)


def epoch_order(targets: npt.NDArray[np.int64], recipe: Recipe, rng: np.random.Generator) -> tuple[Indexes, npt.NDArray[np.bool_]]:
    """Return places in `targets` in random order, and which of them are copies that make up for a small class."""
    places, copies = np.arange(len(targets)), np.zeros(len(targets), dtype=np.bool_)
    if recipe.balance == "oversample":
        counts = np.bincount(targets)
        extra = [rng.choice(np.flatnonzero(targets == c), counts.max() - counts[c]) for c in np.flatnonzero(counts)]
        added = np.concatenate(extra)
        places = np.concatenate([places, added])
        copies = np.concatenate([copies, np.ones(len(added), dtype=np.bool_)])
    order = rng.permutation(len(places))
    return places[order], copies[order]


def class_weights(targets: npt.NDArray[np.int64], recipe: Recipe) -> Floats:
    """Return the weight of each class; the mean weight of a picture is 1. Classes without pictures get 0."""
    counts = np.bincount(targets)
    if recipe.balance != "weights":
        return np.ones(len(counts), dtype=np.float32)
    present = counts > 0
    weights = np.where(present, len(targets) / (present.sum() * np.maximum(counts, 1)), 0.0)
    return np.asarray(weights, dtype=np.float32)


def _draw(pictures: Pictures, train: Indexes, recipe: Recipe, epoch: int) -> Iterator[tuple[Any, ...]]:
    rng = np.random.default_rng((recipe.seed, epoch))
    targets = pictures.targets[train]
    weights = class_weights(targets, recipe)
    order, copies = epoch_order(targets, recipe, rng)
    side, wanted = pictures.pixels.shape[1], recipe.augmentation
    one_hot = np.eye(pictures.classes, dtype=np.float32)
    for step in range(steps_of(targets, recipe)):
        part = slice(step * recipe.batch, (step + 1) * recipe.batch)
        chosen = order[part]
        moves = transforms(len(chosen), side, wanted, rng)
        flips = (rng.random(len(chosen)) < 0.5) & wanted.flip
        if wanted.only_copies:
            moves[~copies[part]] = _STILL
            flips &= copies[part]
        yield pictures.pixels[train[chosen]], moves, flips, one_hot[targets[chosen]], weights[targets[chosen]]


_STILL = np.array([1, 0, 0, 0, 1, 0, 0, 0], dtype=np.float32)


def transforms(count: int, side: int, wanted: Augmentation, rng: np.random.Generator) -> Floats:
    """Return projective transforms about the centre, output to input, shape (count, 8).

    Both axes are zoomed apart from each other, and the shear is along the rows, as in Keras' ImageDataGenerator, which the
    publications use.
    """
    turn = np.deg2rad(rng.uniform(-wanted.rotation, wanted.rotation, count))
    lean = np.tan(np.deg2rad(rng.uniform(-wanted.shear, wanted.shear, count)))
    wide, high = 1 + rng.uniform(-wanted.zoom, wanted.zoom, (2, count))
    right = rng.uniform(-wanted.width_shift, wanted.width_shift, count) * side
    down = rng.uniform(-wanted.height_shift, wanted.height_shift, count) * side
    cos, sin, middle = np.cos(turn), np.sin(turn), (side - 1) / 2
    xx, xy, yx, yy = cos * wide, (cos * lean - sin) * high, sin * wide, (sin * lean + cos) * high
    to_x = middle - (xx + xy) * middle + right
    to_y = middle - (yx + yy) * middle + down
    return np.stack([xx, xy, to_x, yx, yy, to_y, np.zeros(count), np.zeros(count)], axis=1).astype(np.float32)


def changed(pixels: Any, moves: Any, flips: Any) -> Any:
    """Return pictures moved and mirrored, float32, 0..1, (n, side, side, 1); what comes in from outside repeats the border."""
    floats = tf.cast(pixels, tf.float32)[..., tf.newaxis] / 255.0
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=floats,
        transforms=moves,
        output_shape=tf.shape(floats)[1:3],
        interpolation="BILINEAR",
        fill_mode="NEAREST",
        fill_value=0.0,
    )
    return tf.where(flips[:, tf.newaxis, tf.newaxis, tf.newaxis], tf.reverse(moved, axis=[2]), moved)
