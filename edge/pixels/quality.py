"""Is this a picture that the network may be asked about? Otherwise a reason code for the person who sent it."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

from PIL import Image

from edge.errors import Refused
from edge.pixels.decode import Decoded
from edge.pixels.preprocess import INPUT_SIDE

MAX_CHROMA = 12.0
"""Mean max-min of the colour channels, 0..255. Scanned films with a tint stay below 8, colour photographs above 15."""

MAX_ASPECT = 3.0
MIN_SPREAD = 8
"""Grey levels between the 1st and the 99th percentile of a picture that shows something."""

MAX_WHITE = 0.25
"""Share of the middle of a picture, half of it each way, that may be white without a shade. Of 6,128 radiographs of three
collections the worst has 0.195 and the next one 0.085; with their grey values times 2.2, 19 of 20 have more than 0.32."""
_WHITE = 250

_SAMPLE = 64
"""Pixels on a side of what is looked at for these two."""
_MIDDLE = (_SAMPLE // 4, _SAMPLE // 4, 3 * _SAMPLE // 4, 3 * _SAMPLE // 4)


def check_quality(picture: Decoded) -> None:
    """Return if the picture may be classified.

    Raises:
        Refused: colour, too_small, odd_shape, blank, burnt_out.
    """
    width, height = picture.image.size
    if picture.chroma > MAX_CHROMA:
        raise Refused("colour", f"mean chroma {picture.chroma:.0f}")
    if min(height, width) < INPUT_SIDE:
        raise Refused("too_small", f"{width} x {height} pixels, the shorter side needs {INPUT_SIDE}")
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise Refused("odd_shape", f"{width} x {height} pixels")
    sample = picture.image.resize((_SAMPLE, _SAMPLE), Image.Resampling.NEAREST)
    counts = list(accumulate(sample.histogram()))
    low, high = (bisect_left(counts, _SAMPLE**2 * share) for share in (0.01, 0.99))
    if high - low < MIN_SPREAD:
        raise Refused("blank", f"grey values {low}..{high}")
    middle = sample.crop(_MIDDLE)
    white = sum(middle.histogram()[_WHITE:]) / (middle.width * middle.height)
    if white > MAX_WHITE:
        raise Refused("burnt_out", f"{white:.0%} of the middle is white")
