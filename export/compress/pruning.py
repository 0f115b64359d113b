"""Magnitude pruning of any network, while its owner trains it on.

Zeros make nothing faster in any runtime that was tried; they make what travels to a device smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from edge.network.classify import new_interpreter
from export.compress.formats import scores_of
from export.compress.rebuild import duplicate
from export.errors import ConversionError
from export.legacy_keras import keras

layers = keras.layers

Kernels = Literal["pointwise", "all"]
"""pointwise: of 1x1 convolutions and dense layers, nearly all weights of a network of separable convolutions. all: of every
convolution as well. Depthwise kernels, of nine weights a channel, are never pruned; nor is the last layer, which has few."""

FineTune = Callable[[Any, Sequence[Any]], None]
"""Trains a Keras model whose only output is the logits, in place; the callbacks given must be passed to its `fit`."""

_CLOSE = 0.01
"""How far from the wanted share of zeros a pruned network may end: a kernel's zeros are a whole number."""


def pruned(
    model: Any, sparsity: float, fine_tune: FineTune, steps: int, *, kernels: Kernels = "pointwise", keep: Sequence[str] = ()
) -> Any:
    """Return a copy of `model` that has been trained on while its smallest weights were set to zero.

    The share of zeros grows by a cubic polynomial over the first six tenths of the steps (Zhu and Gupta 2017, "To prune, or not to
    prune"); the rest of them recovers.

    Args:
        model: Keras model; it is not changed.
        sparsity: share of zeros wanted in each pruned kernel, 0..1.
        fine_tune: trains.
        steps: of the optimizer that `fine_tune` will make.
        kernels: of which layers.
        keep: names of layers that are left whole besides the last one.

    Raises:
        ConversionError: if there is nothing to prune, or the fine-tuning was too short to reach the sparsity.
    """
    import tensorflow_model_optimization as tfmot  # imports TensorFlow, with the setting of export.legacy_keras

    tools = tfmot.sparsity.keras
    made = duplicate(model)
    chosen = {layer.name for layer in prunable(made, kernels)} - set(keep)
    if not chosen:
        raise ConversionError(f"{model.name} has no layer whose {kernels} kernels could be pruned. Choose others.")
    frequency = max(min(10, steps // 10), 1)  # in steps; a short training still reaches its sparsity
    schedule = tools.PolynomialDecay(0.0, sparsity, begin_step=0, end_step=max(steps * 6 // 10, 1), frequency=frequency)

    def wrap(layer: Any) -> Any:
        return tools.prune_low_magnitude(layer, pruning_schedule=schedule) if layer.name in chosen else layer

    trainee = keras.models.clone_model(keras.Model(made.input, scores_of(made.output)), clone_function=wrap)
    fine_tune(trainee, (tools.UpdatePruningStep(),))
    for layer in tools.strip_pruning(trainee).layers:
        made.get_layer(layer.name).set_weights(layer.get_weights())
    reached = zero_share(made, kernels, keep)
    if abs(reached - sparsity) > _CLOSE:
        raise ConversionError(
            f"{reached:.0%} of the weights are zero and not {sparsity:.0%}: the fine-tuning did not make the {steps} steps "
            "that were planned, or it left out the callbacks."
        )
    return made


def prunable(model: Any, kernels: Kernels) -> list[Any]:
    """Return the layers whose kernels are pruned: see `Kernels`."""
    with_kernel = [layer for layer in model.layers if type(layer) in (layers.Conv2D, layers.Dense)]
    return [layer for layer in with_kernel[:-1] if kernels == "all" or type(layer) is layers.Dense or layer.kernel_size == (1, 1)]


def zero_share(model: Any, kernels: Kernels, keep: Sequence[str] = ()) -> float:
    """Return the share of zeros in the kernels of the prunable layers, 0..1."""
    values = [layer.get_weights()[0] for layer in prunable(model, kernels) if layer.name not in keep]
    return float(sum(np.count_nonzero(kernel == 0) for kernel in values) / max(sum(kernel.size for kernel in values), 1))


def zero_share_of_all(model: Any) -> float:
    """Return the share of zeros in all kernels, those that are never pruned included, 0..1."""
    values = [weight.numpy() for weight in model.trainable_weights if "kernel" in weight.name]
    return float(sum(np.count_nonzero(kernel == 0) for kernel in values) / max(sum(kernel.size for kernel in values), 1))


def zero_share_of_file(graph: bytes) -> float:
    """Return the share of zeros among the kernels in a TFLite file, those of depthwise convolutions left out, 0..1."""
    interpreter = new_interpreter(graph, 1)
    interpreter.allocate_tensors()
    outside = {detail["index"] for detail in (*interpreter.get_input_details(), *interpreter.get_output_details())}
    zeros = total = 0
    for detail in interpreter.get_tensor_details():
        constant = len(detail["shape"]) in (2, 4) and detail["shape"][0] != 1  # values between layers are batches of 1
        weights = constant and (detail["dtype"] == np.float32 or len(detail["quantization_parameters"]["scales"]) > 1)
        if weights and detail["index"] not in outside:
            values = interpreter.get_tensor(detail["index"])
            zeros += int((values == 0).sum())
            total += values.size
    return zeros / total if total else 0.0
