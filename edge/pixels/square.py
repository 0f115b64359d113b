"""Pixels that are not square, as some film digitisers write them: a chest must not be judged squashed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from PIL import Image

from edge.errors import Unreadable

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_DISTANCES = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")
"""Each is (vertical, horizontal), PS3.3 C.7.6.3.1.7 and 10.7.1.3. The ratio stands last: it is for where no distance is known."""
_ALIKE = 0.01
_MOST = 4.0


def squared(image: Image.Image, data: Dataset, max_pixels: int) -> Image.Image:
    """Return the picture with square pixels, by enlarging the axis that has fewer; nothing of it is lost.

    Raises:
        Unreadable: damaged, if a pixel is said to be more than four times as long as wide; too_large.
    """
    tall = aspect(data)
    if abs(tall - 1) <= _ALIKE:
        return image
    if not 1 / _MOST <= tall <= _MOST:
        raise Unreadable("damaged", f"pixels {tall:.3g} times as high as wide")
    width, height = image.size
    size = (width, round(height * tall)) if tall > 1 else (round(width / tall), height)
    if size[0] * size[1] > max_pixels:
        raise Unreadable("too_large", f"{size[0]} x {size[1]} square pixels")
    return image.resize(size, Image.Resampling.BILINEAR)


def aspect(data: Dataset) -> float:
    """Return how many times as high as wide a pixel is; 1 where nothing sensible is said."""
    for name in _DISTANCES:
        try:
            vertical, horizontal = (float(value) for value in data.get(name, ()))
        except (TypeError, ValueError):
            continue
        if min(vertical, horizontal) > 0 and math.isfinite(ratio := vertical / horizontal):
            return ratio
    return 1.0
