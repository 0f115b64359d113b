"""What a network input is, for those who only pass one on: neither a picture library nor numpy is loaded for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TypeAlias

    import numpy as np
    import numpy.typing as npt

PREPROCESS_VERSION = 1
"""Version of `edge.pixels.preprocess`. Goes into every bundle and every result; any change of output bytes needs a new number."""

INPUT_SIDE = 192
"""Pixels on a side of the network's input."""

Frame: TypeAlias = "npt.NDArray[np.uint8]"
"""Shape (height, width), 0 = black, 255 = white, bone white."""

_PGM_HEAD = f"P5\n{INPUT_SIDE} {INPUT_SIDE}\n255\n".encode()


def write_pgm(picture: Frame) -> bytes:
    """Return a network input as a binary PGM, which any picture viewer opens and twelve bytes describe."""
    import numpy as np

    return _PGM_HEAD + np.ascontiguousarray(picture).tobytes()


def read_pgm(content: bytes) -> Frame:
    """Return the network input in a PGM that `write_pgm` made.

    Raises:
        ValueError: if it is something else.
    """
    if not content.startswith(_PGM_HEAD) or len(content) != len(_PGM_HEAD) + INPUT_SIDE * INPUT_SIDE:
        raise ValueError(f"no PGM of {INPUT_SIDE} x {INPUT_SIDE} pixels")
    import numpy as np

    return np.frombuffer(content, np.uint8, offset=len(_PGM_HEAD)).reshape(INPUT_SIDE, INPUT_SIDE)
