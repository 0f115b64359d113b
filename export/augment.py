"""Small random changes of training pictures: place, angle, size, exposure and noise.

No mirror images: the heart lies on the left, and so does what the network may learn about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from export.legacy_keras import tf


@dataclass(frozen=True)
class Strength:
    """Largest changes, each drawn uniformly from minus to plus that.

    rotation: radians. shift, zoom: fractions of the side. contrast: factor minus 1. brightness: of the full range.
    gamma: natural logarithm of the exponent. noise: standard deviation, of the full range. mixup: parameter of the symmetric
    beta distribution, 0 for none (Zhang et al. 2018, "mixup: beyond empirical risk minimization").
    """

    rotation: float = 0.12
    shift: float = 0.06
    zoom: float = 0.12
    contrast: float = 0.15
    brightness: float = 0.12
    gamma: float = 0.3
    noise: float = 0.02
    mixup: float = 0.3


def augment(pictures: npt.NDArray[np.uint8], labels: npt.NDArray[np.float32], strength: Strength, rng: np.random.Generator) -> Any:
    """Return (pictures, labels) changed and mixed.

    Args:
        pictures: shape (n, side, side), uint8.
        labels: shape (n, classes), one-hot.
        strength: how much.
        rng: where all randomness comes from.

    Returns:
        Tensor (n, side, side, 1), float32, 0..1, and array (n, classes), rows sum to 1.
    """
    n = len(pictures)
    exposure = np.stack(
        [
            1 + rng.uniform(-strength.contrast, strength.contrast, n),
            rng.uniform(-strength.brightness, strength.brightness, n),
            np.exp(rng.uniform(-strength.gamma, strength.gamma, n)),
        ]
    ).astype(np.float32)
    noise_seed = rng.integers(0, 2**31, 2)
    changed = _change(pictures, _transforms(n, pictures.shape[1], strength, rng), exposure, noise_seed, np.float32(strength.noise))
    share = np.float32(rng.beta(strength.mixup, strength.mixup) if strength.mixup > 0 else 1)
    partner = rng.permutation(n)
    mixed = share * changed + (1 - share) * tf.gather(changed, partner)
    return mixed, share * labels + (1 - share) * labels[partner]


def _transforms(n: int, side: int, strength: Strength, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return projective transforms about the centre, output to input, shape (n, 8)."""
    angle = rng.uniform(-strength.rotation, strength.rotation, n)
    scale = 1 + rng.uniform(-strength.zoom, strength.zoom, n)
    right, down = rng.uniform(-strength.shift, strength.shift, (2, n)) * side
    cos, sin, middle = np.cos(angle) * scale, np.sin(angle) * scale, (side - 1) / 2
    to_x = middle - cos * middle + sin * middle + right
    to_y = middle - sin * middle - cos * middle + down
    rows = [cos, -sin, to_x, sin, cos, to_y, np.zeros(n), np.zeros(n)]
    return np.stack(rows, axis=1).astype(np.float32)


@tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
def _change(pictures: Any, transforms: Any, exposure: Any, noise_seed: Any, noise: Any) -> Any:
    floats = tf.cast(pictures, tf.float32)[..., tf.newaxis] / 255.0
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=floats,
        transforms=transforms,
        output_shape=tf.shape(floats)[1:3],
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=0.0,
    )
    contrast, brightness, gamma = tf.unstack(exposure[:, :, tf.newaxis, tf.newaxis, tf.newaxis])
    bright = (tf.pow(moved, gamma) - 0.5) * contrast + 0.5 + brightness
    grain = tf.random.stateless_normal(tf.shape(bright), seed=noise_seed, stddev=noise)
    return tf.clip_by_value(bright + grain, 0.0, 1.0)
