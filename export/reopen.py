"""A bundle's network as a float network again, from the int8 graph itself.

Every int8 weight is a whole number of steps, and the file says how large a step is: the products are float weights that the
converter puts on the same grid again (see `export.compress.rounding`). Nothing but the bundle is needed to train its reader
further.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.network.bundle import load_bundle
from edge.network.classify import Classifier, new_interpreter
from export.compress.folding import folded
from export.errors import WeightsError
from export.networks.ours import STRIDE, assemble, eyes, reader
from export.phantom import phantom

Floats = npt.NDArray[np.float32]

_KERNELS = ("Conv2D", "depthwise")
"""What the converter calls the weights of a layer: LAYER/Conv2D or LAYER/depthwise."""

_TRAITS_ALIKE = 0.5
"""How far the traits of int8 and float may lie apart, as a share of their length."""


def reopened(graph: bytes, classes: int, side: int) -> tuple[Any, Any]:
    """Return the eyes and the reader of our network, of the weights of an int8 graph; see `export.networks.ours`.

    Args:
        graph: an int8 file that `export.quantize` has made.
        classes: of the bundle.
        side: pixels on a side of its input.

    Raises:
        WeightsError: if the graph is of another network.
    """
    found = constants(graph)
    used: set[str] = set()
    seeing = folded(eyes(side))
    reading = reader(classes, side // STRIDE)
    for layer in (layer for part in (seeing, reading) for layer in part.layers if layer.weights):
        weights = found.get(layer.name)
        if weights is None or [value.shape for value in weights] != [value.shape for value in layer.get_weights()]:
            raise _stranger(f"it has no layer {layer.name} of the same shape")
        layer.set_weights(weights)
        used.add(layer.name)
    if used != set(found):
        raise _stranger(f"it has a layer {min(set(found) - used)} more")
    seeing.trainable = False
    if not _same_traits(graph, seeing, side):
        raise _stranger("it tells what is familiar by other features")
    return seeing, reading


def reopened_bundle(folder: Path) -> Any:
    """Return the float network of a bundle, see `export.networks.ours.build`.

    Raises:
        BundleError: if the bundle is damaged.
        WeightsError: if its network is not ours.
    """
    bundle = load_bundle(folder)
    manifest = bundle.manifest
    graph = (folder / manifest.model_file).read_bytes()
    return assemble(*reopened(graph, len(manifest.classes), manifest.input_side))


def constants(graph: bytes) -> dict[str, tuple[Floats, Floats]]:
    """Return layer -> (kernel, bias) as float32, in the shapes that Keras gives them, of all convolutions of an int8 graph."""
    interpreter = new_interpreter(graph, 1)
    interpreter.allocate_tensors()
    tensors = interpreter.get_tensor_details()
    result = {}
    for tensor in tensors:
        layer, _, kind = tensor["name"].split(";")[0].rpartition("/")
        if tensor["dtype"] != np.int8 or len(tensor["shape"]) != 4 or kind not in _KERNELS:
            continue
        name = layer.split("/")[-1]
        # TFLite keeps (outputs, height, width, inputs), of a depthwise kernel (1, height, width, outputs).
        kernel = _real(interpreter, tensor).transpose((1, 2, 3, 0))
        bias = [
            other
            for other in tensors
            if other["dtype"] == np.int32 and len(other["shape"]) == 1 and f"/{name}/" in other["name"].replace(";", "/")
        ]
        if len(bias) == 1:
            result[name] = (kernel, _real(interpreter, bias[0]))
    return result


def _same_traits(graph: bytes, seeing: Any, side: int) -> bool:
    """Tell whether float eyes give the traits of the graph: no weight says where in the network they are taken."""
    picture = phantom(0, width=side, height=side)
    theirs = Classifier(graph, threads=1).run(picture).traits
    ours = np.asarray(seeing(picture[np.newaxis, :, :, np.newaxis] / np.float32(255))["traits"])[0]
    return ours.shape == theirs.shape and bool(np.linalg.norm(ours - theirs) < _TRAITS_ALIKE * np.linalg.norm(ours))


def _real(interpreter: Any, tensor: Any) -> Floats:
    """Return a constant in real numbers; its steps may differ from output to output."""
    known = tensor["quantization_parameters"]
    steps = interpreter.get_tensor(tensor["index"]).astype(np.float32)
    shape = [1] * steps.ndim
    if len(known["scales"]) > 1:
        shape[known["quantized_dimension"]] = -1
    return np.asarray((steps - known["zero_points"].reshape(shape)) * known["scales"].reshape(shape), dtype=np.float32)


def _stranger(why: str) -> WeightsError:
    return WeightsError(f"The bundle's network is not the one that this software trains ({why}). It can only be recalibrated.")
