"""A small residual network with batch normalization and class maps, for tests of what is done to networks."""

from __future__ import annotations

from typing import Any

from export.legacy_keras import keras

layers = keras.layers


def build(classes: int, side: int | None, stem: tuple[int, ...] = (8,), width: int = 16, dropout: float = 0.1) -> Any:
    """Outputs: `scores`, (n, classes), logits, the means of `heat`."""
    flow = picture = keras.Input((side, side, 1), name="picture")
    for number, channels in enumerate(stem):
        flow = layers.ReLU(name=f"stem{number}_relu")(_convolution(flow, channels, 3, 2, f"stem{number}"))
    around = _convolution(flow, width, 1, 2, "block0_around")
    inner = layers.ReLU(name="block0_first_relu")(_separable(flow, width, 2, "block0_first"))
    inner = _separable(inner, width, 1, "block0_second")
    flow = layers.ReLU(name="block0_relu")(layers.Add(name="block0_add")([inner, around]))
    flow = layers.SpatialDropout2D(dropout, name="dropout")(flow)
    heat = layers.Conv2D(classes, 1, name="heat")(flow)
    return keras.Model(picture, {"scores": layers.GlobalAveragePooling2D(name="scores")(heat), "heat": heat}, name="small")


def _separable(flow: Any, channels: int, stride: int, name: str) -> Any:
    flow = layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False, name=f"{name}_depth")(flow)
    flow = layers.BatchNormalization(momentum=0.9, name=f"{name}_depth_norm")(flow)
    return _convolution(layers.ReLU(name=f"{name}_depth_relu")(flow), channels, 1, 1, f"{name}_point")


def _convolution(flow: Any, channels: int, kernel: int, stride: int, name: str) -> Any:
    flow = layers.Conv2D(channels, kernel, strides=stride, padding="same", use_bias=False, name=name)(flow)
    return layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(flow)
