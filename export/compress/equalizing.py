"""Channels that use all of the range that int8 gives them.

A TFLite file has one scale for all channels of a value. Behind a ReLU6 that is 0..6, and a channel that never goes beyond 0.3 is
left with a dozen steps. Such a channel can be made larger and what reads it smaller by the same factor; up to the limit of 6 the
network stays the same (after Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction", who do it
for weights).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from export.compress.formats import Pictures
from export.compress.rebuild import consumers, duplicate, output_layers
from export.legacy_keras import keras

layers = keras.layers

_KERNELS = (layers.Conv2D, layers.DepthwiseConv2D)
_MOST = 64.0
"""A channel that hardly ever speaks is not stretched beyond this: on another picture it may."""
_BATCH = 16


def equalized(model: Any, representative: Pictures, free: str | None = None) -> Any:
    """Return an equal network whose channels behind a ReLU with a limit reach that limit somewhere.

    Equal as long as no channel exceeds what it reaches in `representative`; beyond, it is cut there.

    Args:
        model: Keras model without batch normalization between convolutions and their ReLU, see `export.compress.folding`; it is not
            changed. Only a ReLU between convolutions and nothing else is taken.
        representative: shape (n, side, side, channels), uint8; of the training part.
        free: name of a layer that no trained layer reads yet: what it takes is stretched as well; there alone the network differs.
    """
    made = duplicate(model)
    after, ends = consumers(made), output_layers(made)
    for layer in made.layers:
        if not isinstance(layer, layers.ReLU) or layer.max_value is None or layer.name in ends:
            continue
        before = layer.input.node.layer
        readers = [reader for reader in after[layer.name] if reader.name != free]
        if len(after[before.name]) != 1 or not all(isinstance(reader, _KERNELS) for reader in [before, *readers]):
            continue
        _stretch(before, readers, float(layer.max_value), _tops(made, layer, representative))
    return made


def _tops(model: Any, layer: Any, representative: Pictures) -> Any:
    part = keras.Model(model.input, layer.output)
    shown = (representative[i : i + _BATCH] / np.float32(255) for i in range(0, len(representative), _BATCH))
    return np.max([np.max(part(pictures, training=False), axis=(0, 1, 2)) for pictures in shown], axis=0)


def _stretch(before: Any, readers: list[Any], limit: float, tops: Any) -> None:
    factor = np.where(tops > 0, np.minimum(limit / np.maximum(tops, 1e-9), _MOST), 1.0)
    kernel, bias = before.get_weights()
    spread = factor.reshape(kernel.shape[2:]) if isinstance(before, layers.DepthwiseConv2D) else factor
    before.set_weights([kernel * spread, bias * factor])
    for reader in readers:
        kernel, *rest = reader.get_weights()
        reader.set_weights([kernel / factor[:, np.newaxis], *rest])
