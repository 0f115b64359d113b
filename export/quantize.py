"""Full int8 post-training quantization: int8 in, int8 out, nothing else between."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.classify import new_interpreter
from export.legacy_keras import tf

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
    graph = to_int8(model, pictures[..., np.newaxis])
    scale, zero_point = input_quantization(graph)
    if np.float32(scale) != np.float32(INPUT_SCALE) or zero_point != INPUT_ZERO_POINT:
        raise ValueError(f"the input is quantized with scale {scale} and zero point {zero_point}, not as pixel - 128")
    return graph


def to_int8(model: Any, pictures: npt.NDArray[np.uint8]) -> bytes:
    """Return the int8 graph of any network of `export.networks.catalog`.

    Args:
        model: Keras model of a fixed input size.
        pictures: shape (n, side, side, channels), uint8; the network is given pixel / 255.
    """
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: _representative(pictures)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    with warnings.catch_warnings():
        # The converter asks for input statistics that only quantization-aware training has; `quantize` sees what it did.
        warnings.filterwarnings("ignore", message="Statistics for quantized inputs")
        return bytes(converter.convert())


def run_int8(graph: bytes, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Run an int8 graph with one output; shape (n, classes). Our own graph has two: see `export.model.int8_logits`.

    Args:
        graph: of `to_int8`.
        pictures: shape (n, side, side, channels), uint8.
    """
    interpreter = new_interpreter(graph, 1)
    interpreter.allocate_tensors()
    given, gives = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero_point = given["quantization"]
    rows = []
    for picture in pictures:
        steps = np.rint(picture / 255.0 / scale + zero_point).clip(-128, 127).astype(np.int8)
        interpreter.set_tensor(given["index"], steps[np.newaxis])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(gives["index"])[0].astype(np.float64))
    scale, zero_point = gives["quantization"]
    return np.asarray((np.stack(rows) - zero_point) * scale, dtype=np.float64)


def input_quantization(graph: bytes) -> tuple[float, int]:
    """Return (scale, zero point) of the graph's input."""
    scale, zero_point = new_interpreter(graph, 1).get_input_details()[0]["quantization"]
    return float(scale), int(zero_point)


def _representative(pictures: npt.NDArray[np.uint8]) -> Iterator[list[npt.NDArray[np.float32]]]:
    """Yield network inputs; the first gets one black and one white pixel, so that the input's range is 0..1 whatever follows."""
    for number, picture in enumerate(pictures):
        values = picture.astype(np.float32)[np.newaxis] / 255.0
        if number == 0:
            values[0, 0, :2, :] = np.array([[0.0], [1.0]])
        yield [values]
