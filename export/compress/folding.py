"""Batch normalization folded into the layer before it, as the int8 file will have it.

What trains on afterwards sees the very weights that are quantized, and tfmot, which knows normalization in some places only, needs
not know it at all. The statistics are thereby frozen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from export.compress.rebuild import consumers, copy_of, output_layers, rebuilt
from export.legacy_keras import keras

layers = keras.layers

_DROPOUTS = (layers.Dropout, layers.SpatialDropout2D)  # what trains on afterwards is to copy, and they would only blur what it sees
_KERNELS = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)


def folded(model: Any) -> Any:
    """Return an equal network (in inference) without batch normalization, rescaling and dropout.

    Normalization that follows a convolution or dense layer directly becomes part of it. One of vectors whose values go to a dense
    layer, through dropout at most, becomes part of that. One that stands elsewhere on maps, as well as a rescaling, becomes a 1x1
    depthwise convolution of the same name. Any other stays.
    """
    after = consumers(model)
    ends = output_layers(model)

    def only(layer: Any) -> Any:
        return after[layer.name][0] if len(after[layer.name]) == 1 and layer.name not in ends else None

    into: dict[str, Any] = {}  # layer -> normalization after it
    ahead: dict[str, Any] = {}  # dense layer -> normalization before it
    for layer in model.layers:
        next_one = only(layer)
        plain = isinstance(layer, _KERNELS) and layer.activation is keras.activations.linear
        if plain and type(next_one) is layers.BatchNormalization:
            into[layer.name] = next_one
    gone = {norm.name for norm in into.values()}
    for layer in model.layers:
        if type(layer) is layers.BatchNormalization and layer.name not in gone and len(layer.input_shape) == 2:
            next_one = only(layer)
            while isinstance(next_one, _DROPOUTS):
                next_one = only(next_one)
            if type(next_one) is layers.Dense and next_one.use_bias:
                ahead[next_one.name] = layer
    gone |= {norm.name for norm in ahead.values()}

    def change(layer: Any) -> Any:
        if layer.name in gone or isinstance(layer, _DROPOUTS):
            return None
        if _is_line(layer):
            return layers.DepthwiseConv2D(1, name=layer.name)
        return copy_of(layer, use_bias=True) if layer.name in into else copy_of(layer)

    made = rebuilt(model, change)
    for layer in (layer for layer in made.layers if layer.weights):
        old = model.get_layer(layer.name)
        if _is_line(old):
            gain, shift = _line(old)
            layer.set_weights([gain.reshape(1, 1, -1, 1), shift])
            continue
        values = _merged(old, into[layer.name]) if layer.name in into else old.get_weights()
        if layer.name in ahead:
            gain, shift = _line(ahead[layer.name])
            values = [gain[:, np.newaxis] * values[0], values[1] + shift @ values[0]]
        layer.set_weights(values)
    return made


def _is_line(layer: Any) -> bool:
    return type(layer) in (layers.BatchNormalization, layers.Rescaling) and len(layer.input_shape) == 4


def _merged(layer: Any, norm: Any) -> list[npt.NDArray[np.float32]]:
    kernel, *rest = layer.get_weights()
    gain, shift = _line(norm)
    bias = rest[0] if rest else np.zeros_like(shift)
    # The output channels are the last axis, of a depthwise kernel the last two.
    scaled = kernel * (gain.reshape(kernel.shape[2:]) if isinstance(layer, layers.DepthwiseConv2D) else gain)
    return [scaled.astype(np.float32), (bias * gain + shift).astype(np.float32)]


def _line(layer: Any) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return (gain, shift) of a normalization in inference or of a rescaling, shape (channels,)."""
    if isinstance(layer, layers.Rescaling):
        ones = np.ones(layer.input_shape[-1], np.float32)
        return ones * np.asarray(layer.scale, np.float32), ones * np.asarray(layer.offset, np.float32)
    mean, variance = (np.asarray(value) for value in (layer.moving_mean, layer.moving_variance))
    gain = (np.asarray(layer.gamma) if layer.scale else 1.0) / np.sqrt(variance + layer.epsilon)
    shift = (np.asarray(layer.beta) if layer.center else 0.0) - mean * gain
    return np.asarray(gain, np.float32), np.asarray(shift, np.float32)
