"""Pictures with less and less of the chest in them. What a network still scores on these it did not learn from lungs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge.pixels.preprocess import preprocess_image
from export.dataset import Pixels
from export.evaluate import patched

_BORDER = 16
"""The border that is left is this part of the side wide: text, edges of the film and of the body, hardly any lung."""
_GRAY = 128


def lungs_out(pixels: Pixels, lungs: npt.NDArray[np.bool_]) -> Pixels:
    """Return the pictures with the lungs black; both of shape (n, side, side)."""
    return np.where(lungs, np.uint8(0), pixels)


def centre_out(pixels: Pixels) -> Pixels:
    """Return the pictures with the middle square, 61% of the area, black."""
    return patched(pixels, 0)


def border_only(pixels: Pixels) -> Pixels:
    """Return the pictures black but for the outermost sixteenth of the side."""
    side = pixels.shape[1]
    width = max(side // _BORDER, 1)
    result = pixels.copy()
    result[:, width : side - width, width : side - width] = 0
    return result


def shape_only(sizes: Sequence[tuple[int, int]], side: int) -> Pixels:
    """Return the network inputs, shape (n, side, side), of flat gray pictures of these (width, height)."""
    return np.stack([np.asarray(preprocess_image(Image.new("L", size, _GRAY), side)) for size in sizes])
