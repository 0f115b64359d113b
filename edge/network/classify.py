"""The network: one function that finds a TFLite runtime, and a classifier around its interpreter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.contract.bundle import Runtime
from edge.errors import BundleError
from edge.pixels.network_input import Frame


@dataclass(frozen=True)
class Scores:
    """What the network says about one picture.

    logits: shape (classes,), float32, before temperature and softmax.
    steps: the same as the int8 values that the graph gave; what golden values are compared by.
    heat: shape (rows, columns, classes), float32; the class maps whose mean is the logit. Empty for a graph without them.
    traits: shape (traits,), float32; what typicality is measured by. Empty for a graph without them.
    """

    logits: npt.NDArray[np.float32]
    steps: tuple[int, ...]
    heat: npt.NDArray[np.float32]
    traits: npt.NDArray[np.float32]


class Classifier:
    """A full-int8 graph: one (1, side, side, 1) input; logits (1, classes), maps (1, rows, columns, classes), traits (1, any).

    Maps and traits may be missing. The order of a graph's outputs is the converter's, so they are told apart by their shapes: there
    are as many logits as maps.
    """

    def __init__(self, model: bytes, *, threads: int = 1, new: Callable[[bytes, int], Any] | None = None) -> None:
        """Load a graph whose bytes have been verified.

        Args:
            model: the file.
            threads: of the runtime.
            new: makes the interpreter; None for `new_interpreter`.

        Raises:
            BundleError: if the runtime cannot load it or its inputs and outputs are others.
        """
        try:
            self._interpreter = (new or new_interpreter)(model, threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise BundleError(f"The TFLite runtime cannot load the model: {str(error)[:200]}") from None
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        maps = [output for output in outputs if len(output["shape"]) == 4]
        flat = [output for output in outputs if len(output["shape"]) == 2]
        if len(flat) > 1:
            flat.sort(key=lambda output: not maps or output["shape"][1] != maps[0]["shape"][3])
        if len(inputs) != 1 or len(flat) not in (1, 2) or len(maps) > 1 or any(d["dtype"] != np.int8 for d in (*inputs, *outputs)):
            raise BundleError(
                "The model is not of the expected kind: int8, one input; class scores, at most one class map and traits."
            )
        self._input, self._scores, self._maps = inputs[0], flat[0], maps[0] if maps else None
        self._traits = flat[1] if len(flat) > 1 else None
        if float(np.float32(self._input["quantization"][0] * 255)) != 1.0 or self._input["quantization"][1] != -128:
            raise BundleError("The model's input is not quantized as pixel - 128; it was not made by `cxr-export`.")
        self.input_side = int(self._input["shape"][1])
        self.classes = int(self._scores["shape"][1])
        self.traits = int(self._traits["shape"][1]) if self._traits is not None else 0

    def run(self, picture: Frame) -> Scores:
        """Return the scores of one network input: shape (side, side), uint8, as `edge.pixels.preprocess.preprocess` gives."""
        # The input's quantization is pixel - 128 (checked above), so flipping the top bit is the whole conversion.
        signed = (picture ^ np.uint8(0x80)).view(np.int8)
        self._interpreter.set_tensor(self._input["index"], signed[np.newaxis, :, :, np.newaxis])
        self._interpreter.invoke()
        raw = self._interpreter.get_tensor(self._scores["index"])[0]
        heat = np.empty((0, 0, self.classes), np.float32)
        if self._maps is not None:
            heat = _real(self._interpreter.get_tensor(self._maps["index"])[0], self._maps)
        traits = np.empty(0, np.float32)
        if self._traits is not None:
            traits = _real(self._interpreter.get_tensor(self._traits["index"])[0], self._traits)
        return Scores(_real(raw, self._scores), tuple(int(step) for step in raw), heat, traits)


def new_interpreter(model: bytes, threads: int) -> Any:
    """Return an interpreter of LiteRT where a wheel exists, else of tflite-runtime (32-bit ARM).

    Raises:
        BundleError: if neither is installed.
    """
    return _found()[1](model_content=model, num_threads=threads)


def runtime() -> Runtime:
    """Return which runtime `new_interpreter` uses.

    Raises:
        BundleError: if none is installed.
    """
    return _found()[0]


def _found() -> tuple[Runtime, Any]:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        try:
            from tflite_runtime.interpreter import Interpreter
        except ImportError:
            raise BundleError("No TFLite runtime is installed. Run: pip install 'cxr-edge[edge]'") from None
        return "tflite-runtime", Interpreter
    return "ai-edge-litert", Interpreter


def _real(values: npt.NDArray[np.int8], details: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    scale, zero = details["quantization"]
    return (values.astype(np.float32) - np.float32(zero)) * np.float32(scale)
