"""The network as an ONNX file, for TensorRT on a Jetson: float32, the same decisions, the same bytes from the same weights.

tf2onnx names and orders what it writes by the hashes of strings, which differ from one process to the next. So its graph is put
into one order (a walk from the outputs to the input) and its inner values are renamed by their place in it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from export.errors import ConversionError
from export.legacy_keras import tf

OPSET = 17
"""TensorRT 8.6 reads operators up to 17, TensorRT 10 up to 20 and more: JetPack 6 has had both."""
PRODUCER = "cxr-export"
INPUT_NAME = "picture"

Arrays = dict[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Agreement:
    """Of two runs over the same pictures. same_class: share, 0..1. largest_difference: of any value of any output."""

    pictures: int
    same_class: float
    largest_difference: float


def to_onnx(model: Any) -> bytes:
    """Return the ONNX file of any network of a fixed input size.

    Args:
        model: Keras model with one input. One output is called `scores` in the file; several keep the names they have.

    Input of the file: `picture`, (1, side, side, channels), float32, pixel / 255.

    Raises:
        ConversionError: if the model has several inputs or no fixed size, or ONNX finds a fault in the file.
    """
    import onnx
    import tf2onnx

    shape = model.input_shape
    if not isinstance(shape, tuple) or None in shape[1:]:
        raise ConversionError(f"{model.name} takes pictures of shape {shape}. An ONNX file needs one input of a fixed size.")
    outputs = model.output if isinstance(model.output, dict) else {"scores": model.output}
    signature = tf.TensorSpec((1, *shape[1:]), tf.float32, name=INPUT_NAME)

    @tf.function(input_signature=[signature])  # type: ignore[untyped-decorator]
    def run(picture: Any) -> dict[str, Any]:
        given = model(picture, training=False)
        # An identity of its own for each output, so that one tensor that is two outputs still gets two names.
        return {name: tf.identity(given[name] if isinstance(given, dict) else given, name=name) for name in outputs}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tf2onnx 1.17 uses what numpy and protobuf have deprecated
        made, _ = tf2onnx.convert.from_function(run, input_signature=[signature], opset=OPSET)
    made = in_one_order(made, sorted(outputs))
    try:
        onnx.checker.check_model(made, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ConversionError(f"ONNX finds a fault in the file of {model.name}: {str(error).splitlines()[0]}") from None
    return bytes(made.SerializeToString(deterministic=True))


def in_one_order(made: Any, outputs: list[str]) -> Any:
    """Return a copy of an ONNX model whose nodes, weights and names follow from its structure alone.

    Args:
        made: onnx.ModelProto without subgraphs.
        outputs: the names of its outputs, in the order wanted.
    """
    import onnx

    graph = made.graph
    maker = {value: node for node in graph.node for value in node.output}
    weights = {weight.name: weight for weight in graph.initializer}
    nodes: list[Any] = []
    used: list[str] = []
    done: set[str] = set()
    # Depth first, without recursion: a ResNet152 is deeper than Python's stack likes.
    waiting = [(name, False) for name in reversed(outputs)]
    while waiting:
        name, inputs_done = waiting.pop()
        if name in done or (name not in maker and name not in weights):
            continue
        if name in weights:
            done.add(name)
            used.append(name)
        elif inputs_done:
            done.update(maker[name].output)
            nodes.append(maker[name])
        else:
            waiting.append((name, True))
            waiting.extend((value, False) for value in reversed(maker[name].input))
    names = {value: f"value{number}" for number, value in enumerate(v for node in nodes for v in node.output)}
    names |= {name: f"weight{number}" for number, name in enumerate(used)}
    names |= {name: name for name in outputs} | {graph.input[0].name: INPUT_NAME}
    fresh = onnx.helper.make_graph(
        [_renamed(node, names, number) for number, node in enumerate(nodes)],
        "network",
        [_value(graph.input[0], INPUT_NAME)],
        [_value(next(value for value in graph.output if value.name == name), name) for name in outputs],
        [_weight(weights[name], names[name]) for name in used],
    )
    wanted = [entry for entry in made.opset_import if entry.domain in {node.domain for node in nodes}]
    return onnx.helper.make_model(fresh, producer_name=PRODUCER, opset_imports=wanted, ir_version=made.ir_version)


def run_onnx(file: bytes, pictures: npt.NDArray[np.uint8]) -> Arrays:
    """Run an ONNX file of `to_onnx` by onnxruntime on one thread; output name -> (n, ...).

    Args:
        file: its bytes.
        pictures: shape (n, side, side, channels), uint8.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    rows = [session.run(names, {INPUT_NAME: picture[np.newaxis] / np.float32(255)}) for picture in pictures]
    return {name: np.concatenate([row[i] for row in rows]).astype(np.float64) for i, name in enumerate(names)}


def agreement(file: bytes, model: Any, pictures: npt.NDArray[np.uint8]) -> Agreement:
    """Compare an ONNX file with the network it was made of, on pictures as for `run_onnx`."""
    found = run_onnx(file, pictures)
    parts = [model(pictures[i : i + 32] / np.float32(255), training=False) for i in range(0, len(pictures), 32)]
    named = [part if isinstance(part, dict) else {"scores": part} for part in parts]
    expected = {name: np.concatenate([np.asarray(part[name]) for part in named]) for name in found}
    same = found["scores"].argmax(axis=1) == expected["scores"].argmax(axis=1)
    worst = max(float(np.abs(found[name] - expected[name]).max()) for name in found)
    return Agreement(len(pictures), float(same.mean()), worst)


def _renamed(node: Any, names: dict[str, str], number: int) -> Any:
    import onnx

    fresh = onnx.NodeProto()
    fresh.op_type, fresh.domain, fresh.name = node.op_type, node.domain, f"{node.op_type}{number}"
    fresh.input.extend(names.get(value, value) for value in node.input)
    fresh.output.extend(names[value] for value in node.output)
    fresh.attribute.extend(sorted(node.attribute, key=lambda attribute: attribute.name))
    return fresh


def _value(value: Any, name: str) -> Any:
    import onnx

    fresh = onnx.ValueInfoProto()
    fresh.CopyFrom(value)
    fresh.name, fresh.doc_string = name, ""
    return fresh


def _weight(weight: Any, name: str) -> Any:
    import onnx

    # Through an array, so that the same numbers are always written in the same one of ONNX's ways.
    return onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight), name)
