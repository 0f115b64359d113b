"""Full int8 post-training quantization: int8 in, int8 out, nothing else between."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edge.network.classify import new_interpreter
from export.compress.formats import convert

INPUT_SCALE = 1 / 255
INPUT_ZERO_POINT = -128
"""With these the int8 input is exactly pixel - 128."""


def quantize(model: Any, pictures: npt.NDArray[np.uint8]) -> bytes:
    """Return the int8 graph of our network.

    Args:
        model: of `export.networks.ours.build`.
        pictures: shape (n, side, side), uint8; the ranges of all values inside the network are measured on these.

    Raises:
        ValueError: if the input's quantization came out as anything but pixel - 128.
    """
    graph = convert(model, "int8", pictures[..., np.newaxis])
    scale, zero_point = input_quantization(graph)
    if np.float32(scale) != np.float32(INPUT_SCALE) or zero_point != INPUT_ZERO_POINT:
        raise ValueError(f"the input is quantized with scale {scale} and zero point {zero_point}, not as pixel - 128")
    return graph


def input_quantization(graph: bytes) -> tuple[float, int]:
    """Return (scale, zero point) of the graph's input."""
    scale, zero_point = new_interpreter(graph, 1).get_input_details()[0]["quantization"]
    return float(scale), int(zero_point)
