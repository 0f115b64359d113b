"""An int8 file whose ranges are chosen for the smallest error, not for the largest value.

The converter takes the smallest and the largest value that it has seen of each tensor. One bright corner of one picture then makes
the steps of all pictures coarser. Here each range is shrunk to where the mean squared error of its values is least: what is cut off
costs less than the finer steps bring. Together with `export.compress.rounding` this brings int8 near to the float network without
any training.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from export.compress.formats import Pictures, int8_converter, quietly
from export.compress.rounding import rounded
from export.legacy_keras import tf

Values = npt.NDArray[np.float32]

_FACTORS = np.linspace(1.0, 0.3, 36)
MOST_VALUES = 300_000
"""Of one tensor, drawn evenly from all pictures; what memory takes."""
_STEPS = 255


def close_int8(model: Any, representative: Pictures, *, seed: int = 0) -> bytes:
    """Return the int8 file that says most nearly what the float network says: weights balanced, ranges chosen.

    Args:
        model: Keras model of a fixed input size; it is not changed.
        representative: shape (n, side, side, channels), uint8, of the training part; see `export.compress.representative`.
        seed: of the values that are looked at.
    """
    return with_chosen_ranges(rounded(model, representative), representative, seed=seed)


def with_chosen_ranges(model: Any, representative: Pictures, *, seed: int = 0) -> bytes:
    """Return the int8 file of a network with the ranges of all inner tensors chosen; those of input and outputs stay whole.

    It edits the ranges in the file between the converter's two halves, as TensorFlow's own quantization debugger does; hence the
    imports below, which are no public interface and hold for the version that setup.cfg names.
    """
    from tensorflow.lite.python.convert import mlir_quantize  # TensorFlow, with the setting of export.legacy_keras
    from tensorflow.lite.tools import flatbuffer_utils

    converter = int8_converter(model, representative)
    converter._experimental_calibrate_only = True
    measured = quietly(converter)
    file = flatbuffer_utils.convert_bytearray_to_object(bytearray(measured))
    (graph,) = file.subgraphs
    ends = {*graph.inputs, *graph.outputs}
    inner = [
        index
        for index, tensor in enumerate(graph.tensors)
        if index not in ends and tensor.quantization is not None and tensor.quantization.min is not None
    ]
    for index, values in _values(measured, inner, representative, seed).items():
        low, high = best_range(values)
        graph.tensors[index].quantization.min, graph.tensors[index].quantization.max = [low], [high]
    edited = bytes(flatbuffer_utils.convert_object_to_bytearray(file))
    return bytes(mlir_quantize(edited, input_data_type=tf.int8, output_data_type=tf.int8))


def best_range(values: Values) -> tuple[float, float]:
    """Return the (low, high) whose 256 steps give the values back with the smallest mean squared error; 0 lies within."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    if low == high:
        return low, high
    errors = [_error(values, low * factor, high * factor) for factor in _FACTORS]
    best = float(_FACTORS[int(np.argmin(errors))])
    return low * best, high * best


def _error(values: Values, low: float, high: float) -> float:
    step = (high - low) / _STEPS
    zero = round(-low / step)
    back = (np.clip(np.rint(values / step) + zero, 0, _STEPS) - zero) * step
    return float(np.mean((back - values) ** 2))


def _values(file: bytes, tensors: list[int], pictures: Pictures, seed: int) -> dict[int, Values]:
    """Return the values that tensors of a float TFLite file take, by their index."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # A delegate computes several layers at once and leaves what is between them empty.
    interpreter = Interpreter(
        model_content=file,
        num_threads=1,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    rng = np.random.default_rng(seed)
    share = max(MOST_VALUES // len(pictures), 1)
    found: dict[int, list[Values]] = {index: [] for index in tensors}
    for picture in pictures:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], picture[np.newaxis] / np.float32(255))
        interpreter.invoke()
        for index in tensors:
            values = interpreter.get_tensor(index).reshape(-1)
            found[index].append(values[rng.integers(0, len(values), share)] if len(values) > share else values)
    return {index: np.concatenate(values) for index, values in found.items()}
