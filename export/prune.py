"""Magnitude pruning of the 1x1 convolutions, which hold nearly all weights, while the network trains on.

Zeros make nothing faster in any runtime that was tried; they make what travels to a device smaller.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from export.legacy_keras import keras
from export.train import Recipe, TrainingSet, fit


def prune(model: Any, data: TrainingSet, recipe: Recipe, rng: np.random.Generator) -> None:
    """Prune `model` (of `export.networks.ours.build`) in place to `recipe.sparsity`, over `recipe.prune` epochs.

    The share of zeros grows by a cubic polynomial (Zhu and Gupta 2017, "To prune, or not to prune").
    """
    import tensorflow_model_optimization as tfmot  # imports TensorFlow, with the setting of export.legacy_keras

    tools = tfmot.sparsity.keras
    total = max(len(data.targets) // recipe.batch, 1) * recipe.prune.epochs
    frequency = max(min(10, total // 10), 1)  # in steps; a short training still reaches its sparsity
    schedule = tools.PolynomialDecay(0.0, recipe.sparsity, begin_step=0, end_step=max(total * 6 // 10, 1), frequency=frequency)

    def wrap(layer: Any) -> Any:
        return tools.prune_low_magnitude(layer, pruning_schedule=schedule) if prunable(layer) else layer

    trainee = keras.models.clone_model(keras.Model(model.input, model.output["scores"]), clone_function=wrap)
    fit(trainee, data, recipe.prune, recipe, rng, callbacks=(tools.UpdatePruningStep(),))
    for layer in tools.strip_pruning(trainee).layers:
        model.get_layer(layer.name).set_weights(layer.get_weights())


def prunable(layer: Any) -> bool:
    """Tell whether a layer is a 1x1 convolution, the last one (to the class maps) excepted."""
    return type(layer) is keras.layers.Conv2D and layer.kernel_size == (1, 1) and layer.name != "heat"


def sparsity(model: Any) -> float:
    """Return the share of zeros in the weights of the prunable layers, 0..1."""
    kernels = [layer.get_weights()[0] for layer in model.layers if prunable(layer)]
    return float(sum(np.count_nonzero(kernel == 0) for kernel in kernels) / sum(kernel.size for kernel in kernels))
