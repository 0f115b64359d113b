"""What the eyes of our network see of training pictures, computed once: they are not trained, so all folds and seeds share it.

It is what the int8 eyes see: the reader learns to live with their rounding instead of meeting it for the first time on a device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.network.classify import new_interpreter
from export.augment import Floats, Strength, distort, exchange_borders, without_middle
from export.dataset import Pixels
from export.networks.ours import STRIDE
from export.quantize import quantize

_BATCH = 64
_COMPARED = 2
"""Views of which it is also known what the float eyes see: enough to know what int8 changes."""


@dataclass(frozen=True)
class Views:
    """Several views of n pictures.

    features: shape (views, n, rows, rows, channels), float16; the first view is the picture as it is.
    exact: shape (views or 2, n, rows, rows, channels), float16; what the float eyes see of the first views, of two at most.
    lungs: shape (views, n, rows, rows), float16; how much of each cell is lung, see `make_views`.
    emptied: shape (n, rows, rows, channels), float16; the picture without its middle.
    """

    features: npt.NDArray[np.float16]
    exact: npt.NDArray[np.float16]
    lungs: npt.NDArray[np.float16]
    emptied: npt.NDArray[np.float16]


class Int8Eyes:
    """The int8 graph of the eyes alone. Calling it takes pictures, (n, side, side), 0..1, to features (n, rows, rows, channels)."""

    def __init__(self, eyes: Any, representative: Pixels) -> None:
        """Quantize `eyes` (of `export.networks.ours.eyes`); the ranges are measured on `representative` (n, side, side), uint8."""
        self._eyes = eyes
        self._interpreter = new_interpreter(quantize(eyes, representative), 1)
        self._interpreter.allocate_tensors()
        self._given = self._interpreter.get_input_details()[0]
        (self._gives,) = (output for output in self._interpreter.get_output_details() if len(output["shape"]) == 4)

    def __call__(self, pictures: Floats) -> npt.NDArray[np.float16]:
        """Return the features, whole steps of their scale."""
        scale, zero = self._gives["quantization"]
        seen = np.empty((len(pictures), *self._gives["shape"][1:]), np.float16)
        for index, picture in enumerate(pictures):
            steps = (np.rint(picture * 255) - 128).astype(np.int8)
            self._interpreter.set_tensor(self._given["index"], steps[np.newaxis, :, :, np.newaxis])
            self._interpreter.invoke()
            seen[index] = (self._interpreter.get_tensor(self._gives["index"])[0].astype(np.float32) - zero) * scale
        return seen

    def exact(self, pictures: Floats) -> npt.NDArray[np.float16]:
        """Return what the float eyes see."""
        parts = [pictures[i : i + _BATCH, :, :, np.newaxis] for i in range(0, len(pictures), _BATCH)]
        return np.concatenate([np.asarray(self._eyes(part, training=False)["features"], np.float16) for part in parts])


def make_views(
    look: Int8Eyes,
    pixels: Pixels,
    lungs: Floats,
    groups: npt.NDArray[np.int64],
    strength: Strength,
    *,
    count: int,
    seed: int,
) -> Views:
    """Return views of pictures.

    Args:
        look: the eyes.
        pixels: shape (n, side, side), network inputs.
        lungs: shape (n, side, side), 0..1; 0 throughout where they are not known.
        groups: shape (n,); borders are exchanged within a group (see `export.augment.exchange_borders`).
        strength: of the changes.
        count: of views, at least 1; of the changed ones a third get the border of another picture, half of theirs.
        seed: of all randomness.
    """
    rng = np.random.default_rng(seed)
    plain = (pixels / np.float32(255)).astype(np.float32)
    features, exact = [look(plain)], [look.exact(plain)]
    shares = [_cells(lungs)]
    emptied = np.empty_like(features[0])
    for view in range(1, count):
        border = 0.5 if view % 3 == 2 else 0.0
        seen, covered = np.empty_like(features[0]), np.empty_like(shares[0])
        compared = np.empty_like(features[0]) if view < _COMPARED else None
        for part in _shuffled(len(pixels), rng):
            pictures, masks = distort(pixels[part], lungs[part], strength, rng)
            pictures, masks = exchange_borders(pictures, masks, groups[part], border, rng)
            seen[part], covered[part] = look(pictures), _cells(masks)
            if compared is not None:
                compared[part] = look.exact(pictures)
        features.append(seen)
        exact += [] if compared is None else [compared]
        shares.append(covered)
    for part in _shuffled(len(pixels), rng):
        pictures, _ = distort(pixels[part], lungs[part], strength, rng)
        emptied[part] = look(without_middle(pictures, rng))
    return Views(np.stack(features), np.stack(exact), np.stack(shares), emptied)


def _cells(masks: npt.NDArray[Any]) -> npt.NDArray[np.float16]:
    n, side = masks.shape[:2]
    rows = side // STRIDE
    cells = masks.reshape(n, rows, STRIDE, rows, STRIDE)
    return np.asarray(cells.mean(axis=(2, 4), dtype=np.float32), dtype=np.float16)


def _shuffled(n: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    """Yield parts of a random order, so that neighbours in a part are of all kinds."""
    order = rng.permutation(n)
    for first in range(0, n, _BATCH):
        yield order[first : first + _BATCH]
