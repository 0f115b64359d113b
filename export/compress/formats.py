"""One network as TFLite files of several precisions, and a runner that treats them all alike.

The converter is the same for all: what differs between two rows of a table is the precision alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.network.classify import new_interpreter
from export.errors import ConversionError
from export.legacy_keras import tf
from export.predictions import Precision

PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "dynamic", "int8")

Pictures = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


def convert(model: Any, precision: Precision, representative: Pictures) -> bytes:
    """Return a TFLite file.

    Args:
        model: Keras model of a fixed input size, which is given pixel / 255.
        precision: float32; float16, weights alone, the arithmetic stays float32; dynamic, int8 weights, and activations whose range
            is measured anew in every picture; int8, everything from the input to the outputs.
        representative: shape (n, side, side, channels), uint8; int8 measures the ranges of its values on them, others need none.

    Raises:
        ConversionError: if the network's input has no fixed size.
    """
    if not isinstance(model.input_shape, tuple) or None in model.input_shape[1:]:
        raise ConversionError(f"{model.name} takes pictures of shape {model.input_shape}. A TFLite file needs a fixed size.")
    if precision == "int8":
        return quietly(int8_converter(model, representative))
    converter = new_converter(model)
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    return bytes(converter.convert())


def new_converter(model: Any) -> Any:
    """Return the converter of what a model says of one picture.

    Given the Keras model itself, the converter would first save it with all that a training needs, which takes four times as long
    as all the rest. The numbers in the file are the same; its names differ, and its input is of one picture, not of any number.
    """
    name = model.inputs[0].name.split(":")[0]
    said = tf.function(lambda picture: model(picture, training=False))
    kept = tf.Module()
    kept.variables_of_the_model = list(model.variables)
    function = said.get_concrete_function(tf.TensorSpec((1, *model.input_shape[1:]), tf.float32, name=name))
    return tf.lite.TFLiteConverter.from_concrete_functions([function], kept)


def int8_converter(model: Any, representative: Pictures) -> Any:
    """Return a converter set to int8 throughout; the input is pixel - 128."""
    converter = new_converter(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: _given(representative)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter


def quietly(converter: Any) -> bytes:
    """Convert, without the warning that asks for input statistics, which only the converter's first version could be given."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Statistics for quantized inputs")
        return bytes(converter.convert())


def _given(representative: Pictures) -> Iterator[list[npt.NDArray[np.float32]]]:
    """Yield network inputs; the first gets a black and a white pixel, so that the input's range is 0..1 whatever follows."""
    for number, picture in enumerate(representative):
        values = picture[np.newaxis] / np.float32(255)
        if number == 0:
            values[0, 0, :2, :] = np.array([[0.0], [1.0]])
        yield [values]


class Runner:
    """A TFLite file of any precision in the device's runtime: pictures in, logits out."""

    def __init__(self, graph: bytes, *, threads: int = 1) -> None:
        """Load it.

        Raises:
            BundleError: if there is no runtime.
            ConversionError: if none of the outputs can be told to be the logits.
        """
        self._interpreter = new_interpreter(graph, threads)
        self._interpreter.allocate_tensors()
        (self._input,) = self._interpreter.get_input_details()
        self._output = _logits(self._interpreter)

    def give(self, picture: npt.NDArray[np.uint8]) -> None:
        """Set the input: shape (side, side, channels)."""
        values: Any = picture[np.newaxis] / np.float32(255)
        if self._input["dtype"] == np.int8:
            scale, zero_point = self._input["quantization"]
            values = np.rint(values / scale + zero_point).clip(-128, 127).astype(np.int8)
        self._interpreter.set_tensor(self._input["index"], values)

    def invoke(self) -> None:
        """Run the network on what was given; what is timed."""
        self._interpreter.invoke()

    def logits(self, pictures: Pictures) -> Floats:
        """Return the logits, shape (n, classes), of pictures of shape (n, side, side, channels)."""
        rows = []
        for picture in pictures:
            self.give(picture)
            self.invoke()
            rows.append(self._interpreter.get_tensor(self._output["index"])[0].astype(np.float64))
        scale, zero_point = self._output["quantization"]
        return (np.stack(rows) - zero_point) * scale if scale else np.stack(rows)

    @property
    def output_step(self) -> float:
        """What one step of the logits' integers stands for; 0 where they are floats."""
        return float(self._output["quantization"][0])

    def floats(self) -> list[str]:
        """Return the names of tensors that are not integers: none in a graph that is int8 throughout."""
        return [d["name"] for d in self._interpreter.get_tensor_details() if d["dtype"] in (np.float32, np.float16)]


def keras_logits(model: Any, pictures: Pictures, batch: int = 32) -> Floats:
    """Return the logits of a Keras model, its only output or the one named `scores`; shape (n, classes)."""
    parts = [model(pictures[i : i + batch] / np.float32(255), training=False) for i in range(0, len(pictures), batch)]
    return np.concatenate([np.asarray(scores_of(part)) for part in parts]).astype(np.float64)


def scores_of(outputs: Any) -> Any:
    """Return the logits among a model's outputs: a dictionary with `scores`, or one tensor."""
    return outputs["scores"] if isinstance(outputs, dict) else outputs


def _logits(interpreter: Any) -> Any:
    outputs = interpreter.get_output_details()
    if len(outputs) == 1:
        return outputs[0]
    names = interpreter.get_signature_runner().get_output_details()
    if "scores" not in names:
        raise ConversionError(f"None of the outputs {', '.join(names)} is called scores. Name the network's logits so.")
    wanted = names["scores"]["name"]
    return next(output for output in outputs if output["name"] == wanted)
