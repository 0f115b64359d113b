"""Channel pruning: whole channels are removed, so that less is computed by any runtime.

Zeros alone do not do that. P3's int8 file on one thread of x86, 60 rounds in turns: with 80% of its weights zero 1.02 of the dense
file's time; with three quarters of its channels 0.63, with half 0.32, with a quarter 0.10.

For networks that are one chain of layers, such as P3's. In a residual network the channels of a sum belong to several layers at
once; there a narrower plan of the same network is the simpler way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from export.compress.rebuild import consumers, copy_of, rebuilt
from export.errors import ConversionError
from export.legacy_keras import keras

layers = keras.layers

Channels = npt.NDArray[np.int64]

_MULTIPLE = 16
"""Int8 kernels gain nothing from a number of channels between two multiples."""
_UNCHANGED = (
    layers.Activation, layers.AveragePooling2D, layers.Dropout, layers.GlobalAveragePooling2D, layers.LeakyReLU,
    layers.MaxPooling2D, layers.ReLU, layers.Rescaling, layers.SpatialDropout2D, layers.ZeroPadding2D,
)  # fmt: skip


def thinned(model: Any, share: float, *, multiple: int = _MULTIPLE) -> Any:
    """Return a copy of `model` with about `share` of the channels of every convolution and dense layer but the last.

    Those with the smallest weights go (sum of magnitudes: Li et al. 2017, "Pruning filters for efficient ConvNets"). It has to be
    trained on afterwards.

    Args:
        model: Keras model, one chain of layers.
        share: of the channels that stay, 0..1.
        multiple: the number that stays is rounded up to a multiple of this.

    Raises:
        ConversionError: if the layers are not one chain, or one is of a kind whose channels cannot be followed.
    """
    if any(len(after) > 1 for after in consumers(model).values()):
        raise ConversionError(f"{model.name} is not one chain of layers. Use a narrower plan of it instead of removing channels.")
    last = [layer.name for layer in model.layers if isinstance(layer, (layers.Conv2D, layers.Dense))][-1]
    weights: dict[str, list[npt.NDArray[np.float32]]] = {}
    left: dict[str, int] = {}
    kept: Channels = np.arange(model.input_shape[-1])
    for layer in model.layers:
        values = layer.get_weights()
        if isinstance(layer, layers.DepthwiseConv2D):
            if layer.depth_multiplier != 1:
                raise ConversionError(f"{layer.name} multiplies its channels, which removing some cannot follow.")
            weights[layer.name] = [values[0][:, :, kept], *(value[kept] for value in values[1:])]
        elif type(layer) in (layers.Conv2D, layers.Dense):
            kernel = np.take(values[0], kept, axis=-2)
            mine = _strongest(kernel, share, multiple) if layer.name != last else np.arange(kernel.shape[-1])
            weights[layer.name] = [kernel[..., mine], *(value[mine] for value in values[1:])]
            left[layer.name], kept = len(mine), mine
        elif type(layer) is layers.BatchNormalization:
            weights[layer.name] = [value[kept] for value in values]
        elif isinstance(layer, layers.Flatten):
            _, height, width, channels = layer.input_shape
            kept = (np.arange(height * width)[:, np.newaxis] * channels + kept).reshape(-1)
        elif not isinstance(layer, (*_UNCHANGED, layers.InputLayer)):
            raise ConversionError(f"{layer.name} is a {type(layer).__name__}, through which channels cannot be followed.")

    def change(layer: Any) -> Any:
        if layer.name not in left:
            return copy_of(layer)
        return copy_of(layer, **{"units" if isinstance(layer, layers.Dense) else "filters": left[layer.name]})

    made = rebuilt(model, change)
    for name, values in weights.items():
        made.get_layer(name).set_weights(values)
    return made


def _strongest(kernel: npt.NDArray[np.float32], share: float, multiple: int) -> Channels:
    """Return the output channels that stay, in their order."""
    strength = np.abs(kernel).reshape(-1, kernel.shape[-1]).sum(axis=0)
    count = min(-(-round(len(strength) * share) // multiple) * multiple, len(strength))
    return np.sort(np.argsort(-strength, kind="stable")[:count])
