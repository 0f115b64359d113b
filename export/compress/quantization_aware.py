"""Quantization-aware training that keeps the zeros of pruning (PQAT of tensorflow-model-optimization), and its int8 file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.compress.aware_layers import annotated, applied
from export.compress.formats import Pictures, Runner, new_converter, quietly
from export.compress.pruning import FineTune
from export.compress.ranges import MOST_VALUES, best_range
from export.compress.rebuild import consumers, output_layers
from export.compress.rounding import rounded
from export.legacy_keras import keras, tf

_WRAPPER = "QuantizeWrapperV2"
_RANGES = ("post_activation_min:0", "post_activation_max:0", "output_min:0", "output_max:0")


@dataclass(frozen=True)
class Aware:
    """graph: the int8 file. left_in_float: the layers that tfmot cannot annotate; if there are none, all is int8."""

    graph: bytes
    left_in_float: tuple[str, ...]


def quantization_aware(model: Any, representative: Pictures, fine_tune: FineTune, *, keep_zeros: bool = True) -> Aware:
    """Train a copy of `model` on with its values rounded as int8 will round them, and convert it.

    It starts from balanced weights without normalization (`export.compress.rounding`), and from ranges measured on
    `representative` (`export.compress.ranges`): tfmot's own start is -6 to 6 with a memory of a thousand steps, which is wrong for
    all of a short training.

    Args:
        model: Keras model of a fixed input size; it is not changed.
        representative: shape (n, side, side, channels), uint8.
        fine_tune: trains; no callbacks are needed.
        keep_zeros: hold weights at zero that are zero now.
    """
    start = rounded(model, representative)
    network = _Network(start, keep_zeros)
    network.start_ranges(start, representative)
    network.settle_input()
    fine_tune(network.trainee, ())
    network.settle_input()
    graph = network.to_int8()
    return Aware(graph, tuple(network.left_in_float) if Runner(graph).floats() else ())


class _Network:
    """A network with rounding in it. tfmot loses the names of several outputs, which are put back."""

    def __init__(self, model: Any, keep_zeros: bool) -> None:
        self._names: Sequence[str] = list(model.output) if isinstance(model.output, dict) else ["scores"]
        outputs = [model.output[name] for name in self._names] if isinstance(model.output, dict) else [model.output]
        after = consumers(model)
        self.left_in_float: list[str] = []

        def annotate(layer: Any) -> Any:
            if isinstance(layer, keras.layers.InputLayer):
                return layer
            wrapped = annotated(layer, after[layer.name], keep_zeros=keep_zeros)
            if wrapped is None:
                self.left_in_float.append(layer.name)
            return layer if wrapped is None else wrapped

        self._made = applied(keras.models.clone_model(keras.Model(model.input, outputs), clone_function=annotate))
        self._outputs = dict(zip(self._names, self._made.outputs, strict=True))
        self.trainee = keras.Model(self._made.input, self._outputs["scores"])
        # Kernels are measured when a network trains, and not before; one picture will do, as their ranges are their own.
        self._made(np.zeros((1, *model.input_shape[1:]), np.float32), training=True)

    def start_ranges(self, model: Any, representative: Pictures) -> None:
        """Set the range of each layer's values to that in `model`, the same without rounding; outputs keep all of theirs."""
        wrapped = {layer.name.removeprefix("quant_"): layer for layer in self._made.layers if type(layer).__name__ == _WRAPPER}
        names = [layer.name for layer in model.layers if layer.name in wrapped]
        ends = output_layers(model)
        inner = keras.Model(model.input, [model.get_layer(name).output for name in names])
        rng = np.random.default_rng(0)
        share = max(MOST_VALUES // len(representative), 1)
        found: list[list[Any]] = [[] for _ in names]
        for picture in representative:
            for place, value in enumerate(inner(picture[np.newaxis] / np.float32(255), training=False)):
                flat = np.asarray(value).reshape(-1)
                found[place].append(flat[rng.integers(0, len(flat), share)] if len(flat) > share else flat)
        for name, parts in zip(names, found, strict=True):
            values = np.concatenate(parts)
            low, high = (min(values.min(), 0.0), max(values.max(), 0.0)) if name in ends else best_range(values)
            for weight in wrapped[name].weights:
                if weight.name.rsplit("/", 1)[-1] in _RANGES:
                    weight.assign(high if weight.name.endswith("_max:0") else low)

    def settle_input(self) -> None:
        """Set the input's range to 0..1, so that its int8 value is pixel - 128."""
        for layer in self._made.layers:
            if type(layer).__name__ == "QuantizeLayer":
                for weight in layer.weights:
                    if weight.name.endswith(("_min:0", "_max:0")):
                        weight.assign(1.0 if weight.name.endswith("_max:0") else 0.0)

    def to_int8(self) -> bytes:
        """Convert, with the outputs' names as they were."""
        converter = new_converter(keras.Model(self._made.input, self._outputs))
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        return quietly(converter)
