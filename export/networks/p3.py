"""The network of Ahmed et al. (P3), to its layer table: 453,027 parameters. For comparison; it is not shipped."""

from __future__ import annotations

from typing import Any

from export.legacy_keras import keras

layers = keras.layers

SIDE = 200
PARAMETERS = 453_027
"""Sum of the published layer table, in the order of the table: 896, 128, 18,496, 256, 73,856, 512, 73,792, 256, 18,464, 128,
262,656, 2,048, 1,539."""

_FILTERS = (32, 64, 128, 64, 32)
_DROPOUT = 0.25
"""The publication names dropout and not its rate."""


def build_p3(classes: int = 3, side: int = SIDE) -> Any:
    """Return the untrained network, a Keras model.

    Input: (n, side, side, 3), float32, RGB / 255. Output: (n, classes), logits: the published softmax is part of the loss here.
    Convolution, ReLU and only then batch normalization, as published.
    """
    model = keras.Sequential([keras.Input((side, side, 3))], name="p3")
    for filters in _FILTERS:
        model.add(layers.Conv2D(filters, 3, activation="relu"))
        model.add(layers.BatchNormalization())
        model.add(layers.MaxPooling2D(2))
        model.add(layers.Dropout(_DROPOUT))
    model.add(layers.Flatten())
    model.add(layers.Dense(512, activation="relu"))
    model.add(layers.BatchNormalization())
    model.add(layers.Dropout(_DROPOUT))
    model.add(layers.Dense(classes))
    return model
