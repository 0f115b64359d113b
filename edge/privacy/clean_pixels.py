"""Writing out of a picture: what looks like strokes of letters is replaced by what surrounds it, anatomy that looks so as well.

A stroke is thin, and brighter or darker than both its sides: an opening or closing of the picture by a square that is wider than
the stroke takes it away (a "top hat"), whatever the letter, alphabet or font. Near the edge of the picture, where consoles write,
fainter strokes count than over the chest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge.errors import Refused

Gray = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

_SCALES = ((0.004, 12, 20), (0.010, 16, 32), (0.022, 20, 44), (0.036, 24, 56))
"""Side of the square as a share of the longer side, and the grey levels by which a stroke has to stand out, near the edge and over
the chest. Strokes of letters of 1 to 9% of the picture are thinner than one of these squares."""
_TEXTURE = 2.5
"""So many times what the surroundings stand out on average, too: a grainy picture is no writing. Strokes count as at most 16."""
_MOST_COUNTED = 16
_SURROUNDINGS = 0.04
_WEAK = 0.5
"""From where a stroke stands out enough, it reaches as far as it does by this share of it."""
_LEAST_SIDE = 5
_LOOKED_AT = 1024
"""Pixels on the longer side of what is looked at: the grain of a large detector is averaged out, letters of 1% still have 10."""
_EDGE = 0.12
"""Share of each side that counts as near the edge."""
_REACH = 0.008
MOST = 0.30
"""With a larger share of the picture replaced, what is left is no picture that anybody should rely on."""


@dataclass(frozen=True)
class Cleaned:
    """image: mode L. replaced: share of its pixels that were replaced, 0..1."""

    image: Image.Image
    replaced: float


def clean(image: Image.Image) -> Cleaned:
    """Return a picture without writing.

    Args:
        image: mode L, as displayed.

    Raises:
        Refused: text_over_lungs, if too much of it looks like writing.
    """
    mask = writing(image)
    replaced = float(mask.mean())
    if replaced > MOST:
        raise Refused("text_over_lungs", f"{replaced:.0%} of the picture looks like writing")
    return Cleaned(Image.fromarray(filled(np.asarray(image), mask)), replaced)


def writing(image: Image.Image) -> Mask:
    """Return which pixels of a picture of mode L belong to what looks like writing, or are close to it; shape (height, width)."""
    factor = -(-max(image.size) // _LOOKED_AT)
    mask = _strokes(np.asarray(image.reduce(factor)))
    if factor == 1:
        return mask
    return np.asarray(Image.fromarray(mask).resize((image.width, image.height), Image.Resampling.NEAREST), np.bool_)


def _strokes(gray: Gray) -> Mask:
    longer = max(gray.shape)
    near = _near_edge(gray.shape)
    strong, weak = np.zeros(gray.shape, np.bool_), np.zeros(gray.shape, np.bool_)
    for share, near_edge, over_chest in _SCALES:
        side = max(_LEAST_SIDE, round(share * longer) | 1)
        for stands_out in (gray - opened(gray, side), closed(gray, side) - gray):
            texture = _blurred(np.minimum(stands_out, _MOST_COUNTED).astype(np.float32), max(2, round(_SURROUNDINGS * longer)))
            enough = np.maximum(np.where(near, near_edge, over_chest), _TEXTURE * texture)
            strong |= stands_out > enough
            weak |= stands_out > _WEAK * enough
    reach = max(_LEAST_SIDE, round(_REACH * longer) | 1)
    return spread(weak & spread(strong, reach), reach)


def filled(gray: Gray, mask: Mask) -> Gray:
    """Return the picture with the pixels of the mask taken from around it: the mean of what is known, ever further away."""
    values, weights = gray.astype(np.float32) * ~mask, (~mask).astype(np.float32)
    result, radius = values.copy(), 2
    missing = mask.copy()
    while missing.any() and radius < 4 * max(gray.shape):
        sums, counts = _blurred(values, radius), _blurred(weights, radius)
        enough = missing & (counts > 0.05)
        result[enough] = sums[enough] / counts[enough]
        missing &= ~enough
        radius *= 2
    return np.asarray(np.rint(result).clip(0, 255), np.uint8)


def opened(gray: Gray, side: int) -> Gray:
    """Return the picture without what is brighter than its surroundings and narrower than `side` pixels."""
    return _slid(_slid(gray, side, np.minimum, 255), side, np.maximum, 0)


def closed(gray: Gray, side: int) -> Gray:
    """Return the picture without what is darker than its surroundings and narrower than `side` pixels."""
    return _slid(_slid(gray, side, np.maximum, 0), side, np.minimum, 255)


def spread(mask: Mask, side: int) -> Mask:
    """Return the mask grown by half of `side` pixels in each direction."""
    return _slid(mask.astype(np.uint8), side, np.maximum, 0).astype(np.bool_)


def _slid(gray: Gray, side: int, better: Callable[..., Gray], beyond: int) -> Gray:
    """The least or greatest value in the square of odd `side` around each pixel; steps that double make it fast."""
    half = side // 2
    for axis in (0, 1):
        padding = [(half, half) if number == axis else (0, 0) for number in (0, 1)]
        row = np.moveaxis(np.pad(gray, padding, constant_values=beyond), axis, 0)
        done = 1
        while done < side:
            step = min(done, side - done)
            row = better(row[:-step], row[step:])
            done += step
        gray = np.moveaxis(row, 0, axis)
    return gray


def _near_edge(shape: tuple[int, ...]) -> Mask:
    near = np.ones(shape, np.bool_)
    rows, columns = (round(length * _EDGE) for length in shape)
    near[rows:-rows, columns:-columns] = False
    return near


def _blurred(values: npt.NDArray[np.float32], radius: int) -> npt.NDArray[np.float32]:
    """The mean over the square of 2 * radius + 1 pixels around each pixel; beyond the picture are zeros."""
    for axis in (0, 1):
        side = 2 * min(radius, values.shape[axis]) + 1
        padding = [(side // 2 + 1, side // 2) if number == axis else (0, 0) for number in (0, 1)]
        sums = np.cumsum(np.pad(values, padding), axis=axis, dtype=np.float64)
        ends, starts = np.moveaxis(sums, axis, 0)[side:], np.moveaxis(sums, axis, 0)[:-side]
        values = np.moveaxis((ends - starts) / side, 0, axis).astype(np.float32)
    return values
