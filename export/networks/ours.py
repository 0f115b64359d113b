"""Our network: a small residual network of separable convolutions that also gives its class activation maps.

Order is convolution, batch normalization, ReLU, so that the normalization folds into the convolution in the int8 graph.
Channel counts are multiples of 16: int8 kernels gain nothing from others. The last convolution has one channel a class; the
logits are the means of its maps (Lin, Chen and Yan 2013, "Network in network"), so a map shows exactly what its logit is made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from export.legacy_keras import keras

layers = keras.layers

_MOMENTUM = 0.9
"""Of the running means of batch normalization. A phase of training has some 150 steps: Keras' 0.99 would still remember the
statistics of the smaller pictures of the phase before."""


@dataclass(frozen=True)
class Plan:
    """The shape of the network.

    stem: channels of the first 3x3 convolutions, stride 2 each. Plain ones: where there are few channels and many pixels they train
        faster than separable ones, and they hold hardly any weights.
    blocks: (channels, stride) of the residual blocks of separable convolutions.
    dropout: share of the last feature maps dropped in training.
    """

    stem: tuple[int, ...] = (16, 32, 64)
    blocks: tuple[tuple[int, int], ...] = ((192, 2), (192, 1), (192, 1))
    dropout: float = 0.1


def build(classes: int, side: int | None, plan: Plan = Plan()) -> Any:
    """Return the untrained network, a Keras model.

    Args:
        classes: number of classes.
        side: pixels on a side of the input; None accepts any size (for training on smaller pictures first).
        plan: channels and strides.

    Input: (n, side, side, 1), float32, pixel / 255. Outputs: `scores`, (n, classes), logits, and
    `heat`, (n, side / 16, side / 16, classes), the maps whose means are the logits.
    """
    picture = keras.Input((side, side, 1), name="picture")
    flow = picture
    for number, channels in enumerate(plan.stem):
        flow = _convolution(flow, channels, 3, 2, f"stem{number}")
        flow = layers.ReLU(name=f"stem{number}_relu")(flow)
    for number, (channels, stride) in enumerate(plan.blocks):
        flow = _residual(flow, channels, stride, f"block{number}")
    flow = layers.SpatialDropout2D(plan.dropout, name="dropout")(flow)
    heat = layers.Conv2D(classes, 1, name="heat")(flow)
    scores = layers.GlobalAveragePooling2D(name="scores")(heat)
    return keras.Model(picture, {"scores": scores, "heat": heat}, name="cxr")


def _residual(flow: Any, channels: int, stride: int, name: str) -> Any:
    """Two separable convolutions and a way around them; the way around is a 1x1 convolution where the shape changes."""
    around = flow
    if stride != 1 or flow.shape[-1] != channels:
        around = _convolution(flow, channels, 1, stride, f"{name}_around")
    inner = _separable(flow, channels, stride, f"{name}_first")
    inner = layers.ReLU(name=f"{name}_first_relu")(inner)
    inner = _separable(inner, channels, 1, f"{name}_second")
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([inner, around]))


def _separable(flow: Any, channels: int, stride: int, name: str) -> Any:
    flow = layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False, name=f"{name}_depth")(flow)
    flow = layers.BatchNormalization(momentum=_MOMENTUM, name=f"{name}_depth_norm")(flow)
    flow = layers.ReLU(name=f"{name}_depth_relu")(flow)
    return _convolution(flow, channels, 1, 1, f"{name}_point")


def _convolution(flow: Any, channels: int, kernel: int, stride: int, name: str) -> Any:
    flow = layers.Conv2D(channels, kernel, strides=stride, padding="same", use_bias=False, name=name)(flow)
    return layers.BatchNormalization(momentum=_MOMENTUM, name=f"{name}_norm")(flow)


def lean_against(model: Any, biases: npt.NDArray[np.float64]) -> None:
    """Add one number a class to the logits of `model`, in place, by way of the last layer's bias."""
    layer = model.get_layer("heat")
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel, bias + biases.astype(bias.dtype)])
