"""Random changes of training pictures: place, angle, size, exposure, noise; borders exchanged; and pictures without a middle.

No mirror images: the heart lies on the left, and so does what the network may learn about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from export.dataset import Pixels
from export.legacy_keras import tf

Floats = npt.NDArray[np.float32]
Rectangle = tuple[slice, slice]


@dataclass(frozen=True)
class Strength:
    """Largest changes, each drawn uniformly from minus to plus that.

    rotation: radians. shift, zoom: fractions of the side. contrast: factor minus 1. brightness: of the full range.
    gamma: natural logarithm of the exponent. noise: standard deviation, of the full range.
    """

    rotation: float = 0.12
    shift: float = 0.06
    zoom: float = 0.12
    contrast: float = 0.15
    brightness: float = 0.12
    gamma: float = 0.3
    noise: float = 0.015


def distort(pictures: Pixels, lungs: Floats, strength: Strength, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return pictures and their lungs, changed alike.

    Args:
        pictures: shape (n, side, side), uint8.
        lungs: shape (n, side, side), 0..1, where the lungs are.
        strength: how much.
        rng: where all randomness comes from.

    Returns:
        Both of shape (n, side, side), float32, 0..1.
    """
    n, side = len(pictures), pictures.shape[1]
    exposure = np.stack(
        [
            1 + rng.uniform(-strength.contrast, strength.contrast, n),
            rng.uniform(-strength.brightness, strength.brightness, n),
            np.exp(rng.uniform(-strength.gamma, strength.gamma, n)),
        ]
    ).astype(np.float32)
    moves = _transforms(n, side, strength, rng)
    seed = rng.integers(0, 2**31, 2)
    moved = _move(np.stack([pictures.astype(np.float32) / np.float32(255), lungs.astype(np.float32)], axis=3), moves)
    changed = _expose(moved[..., :1], exposure, seed, np.float32(strength.noise))
    return np.asarray(changed)[..., 0], np.asarray(moved)[..., 1]


def exchange_borders(
    pictures: Floats, lungs: Floats, groups: npt.NDArray[np.int64], share: float, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Return pictures of which about `share` have the border of another; their labels stay those of the middle.

    A border that says nothing about the class cannot be learned. Lungs that the new border hides are taken out of `lungs`.

    Args:
        pictures: shape (n, side, side), 0..1.
        lungs: shape (n, side, side), 0..1.
        groups: shape (n,); a border comes from a picture of the same group, so that training pictures get none of test pictures.
        share: 0..1.
        rng: where all randomness comes from.
    """
    mixed, hidden = pictures.copy(), lungs.copy()
    for index in np.flatnonzero(rng.random(len(pictures)) < share):
        others = np.flatnonzero((groups == groups[index]) & (np.arange(len(pictures)) != index))
        if len(others) == 0:
            continue
        rows, columns = middle(pictures.shape[1], 0.5, 0.75, rng)
        mixed[index] = pictures[rng.choice(others)]
        mixed[index, rows, columns] = pictures[index, rows, columns]
        hidden[index] = 0
        hidden[index, rows, columns] = lungs[index, rows, columns]
    return mixed, hidden


def without_middle(pictures: Floats, rng: np.random.Generator) -> Floats:
    """Return pictures whose middle is black, gray or noise: there is nothing left to tell a disease by."""
    emptied = pictures.copy()
    for picture in emptied:
        hole = picture[middle(picture.shape[0], 0.5, 0.8, rng)]
        kind = rng.random()
        if kind < 0.6:
            hole[:] = 0
        elif kind < 0.8:
            hole[:] = rng.random()
        else:
            hole[:] = np.clip(hole.mean() + rng.normal(size=hole.shape) * hole.std() / 2, 0, 1)
    return emptied


def middle(side: int, least: float, most: float, rng: np.random.Generator) -> Rectangle:
    """Return a rectangle near the middle of a picture, with a random area between these shares of the picture's."""
    area, aspect = rng.uniform(least, most), rng.uniform(0.85, 1.18)
    spans = []
    for length in (area**0.5 * aspect, area**0.5 / aspect):
        pixels = min(round(side * length), side)
        start = (side - pixels) // 2 + round(rng.normal() * side * 0.02)
        start = min(max(start, 0), side - pixels)
        spans.append(slice(start, start + pixels))
    return spans[0], spans[1]


def _transforms(n: int, side: int, strength: Strength, rng: np.random.Generator) -> Floats:
    """Return projective transforms about the centre, output to input, shape (n, 8)."""
    angle = rng.uniform(-strength.rotation, strength.rotation, n)
    scale = 1 + rng.uniform(-strength.zoom, strength.zoom, n)
    right, down = rng.uniform(-strength.shift, strength.shift, (2, n)) * side
    cos, sin, centre = np.cos(angle) * scale, np.sin(angle) * scale, (side - 1) / 2
    to_x = centre - cos * centre + sin * centre + right
    to_y = centre - sin * centre - cos * centre + down
    rows = [cos, -sin, to_x, sin, cos, to_y, np.zeros(n), np.zeros(n)]
    return np.stack(rows, axis=1).astype(np.float32)


@tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
def _move(layers: Any, transforms: Any) -> Any:
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=layers,
        transforms=transforms,
        output_shape=tf.shape(layers)[1:3],
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=0.0,
    )


@tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
def _expose(pictures: Any, exposure: Any, seed: Any, noise: Any) -> Any:
    contrast, brightness, gamma = tf.unstack(exposure[:, :, tf.newaxis, tf.newaxis, tf.newaxis])
    bright = (tf.pow(pictures, gamma) - 0.5) * contrast + 0.5 + brightness
    grain = tf.random.stateless_normal(tf.shape(bright), seed=seed, stddev=noise)
    return tf.clip_by_value(bright + grain, 0.0, 1.0)
