"""From a decoded frame to the network's input: the only copy of the pixel pipeline.

Training, evaluation and the device call `preprocess`; nobody else touches pixels between decode and network.
Every step is integer arithmetic, so that the same frame gives the same bytes on every machine.

The steps and why:
1. The largest centred square is cut out. No squashing and no bars: in the public data the shape of a picture gives
   its source away (98 of 99 covid pictures are not square, all others are), so the shape must not reach the network.
2. A box (area) filter shrinks it: every source pixel counts, and pictures of different size come out alike.
3. The grey values between the 0.5th and the 99.5th percentile are spread over 0..255, because consoles export the same
   film at different brightness. Monotone and global: no histogram equalisation, which hurts on other hospitals' pictures.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

from PIL import Image

from edge.pixels.network_input import INPUT_SIDE, PREPROCESS_VERSION, Frame

__all__ = ["INPUT_SIDE", "PREPROCESS_VERSION", "Frame", "centre_square", "preprocess", "preprocess_image", "to_image"]

_CUT_PER_MILLE = 5


def centre_square(height: int, width: int) -> tuple[int, int, int, int]:
    """Return the crop box (left, upper, right, lower) in pixels of the largest centred square."""
    side = min(height, width)
    left = (width - side) // 2
    upper = (height - side) // 2
    return left, upper, left + side, upper + side


def preprocess_image(image: Image.Image, side: int = INPUT_SIDE) -> Image.Image:
    """Return the network's input for one picture, without numpy: the decoding process then needs a third of the memory.

    Args:
        image: mode L, 0 = black, 255 = white, bone white, at least 1 x 1 pixels.
        side: pixels on a side of the result; another than INPUT_SIDE is for networks that are compared and not shipped.

    Returns:
        Mode L, side x side.

    Raises:
        ValueError: if the image is of another mode or empty.
    """
    if image.mode != "L" or 0 in image.size:
        raise ValueError(f"a picture is of mode L and not empty; this one is {image.mode}, {image.width} x {image.height}")
    box = centre_square(image.height, image.width)
    small = image.resize((side, side), Image.Resampling.BOX, box=box)
    return small.point(_spread(small.histogram()))


def preprocess(frame: Frame) -> Frame:
    """`preprocess_image` for arrays.

    Args:
        frame: shape (height, width), uint8, at least 1 x 1.

    Returns:
        Shape (INPUT_SIDE, INPUT_SIDE), uint8, 0..255, C order.

    Raises:
        ValueError: if the frame is not two-dimensional uint8 or is empty.
    """
    import numpy as np

    return np.array(preprocess_image(to_image(frame)))


def to_image(frame: Frame) -> Image.Image:
    """Return a frame as a Pillow image of mode L, without copying it where its layout allows.

    Raises:
        ValueError: if the frame is not two-dimensional uint8 or is empty.
    """
    if frame.ndim != 2 or frame.dtype != "uint8" or frame.size == 0:
        raise ValueError(f"a frame is two-dimensional uint8, not {frame.dtype} of shape {frame.shape}")
    return Image.fromarray(frame)


def _spread(counts: list[int]) -> list[int]:
    """Return the table that spreads the grey values between two percentiles over 0..255; all 0 for a flat picture.

    Args:
        counts: how many pixels have each of the 256 values.
    """
    cut = sum(counts) * _CUT_PER_MILLE // 1000
    low = bisect_right(list(accumulate(counts)), cut)
    high = 255 - bisect_right(list(accumulate(reversed(counts))), cut)
    span = max(high - low, 1)
    return [(min(max(value - low, 0), span) * 255 + span // 2) // span for value in range(256)]
