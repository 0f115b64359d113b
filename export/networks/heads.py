"""What the borrowed backbones have in common: their input, their ImageNet weights, their heads.

Every network here takes gray pictures as three equal channels, float32, 0..1, and gives logits; the softmax is part of the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from export.errors import FetchError, WeightsError
from export.legacy_keras import keras

layers = keras.layers

HEAD = "head_"
"""How the names of a head's layers begin; all others are the backbone's, which `freeze` holds still."""

Weights = Mapping[str, Path]
"""Backbone -> file of its weights without the top, in Keras' HDF5 layout, or IMAGENET. A backbone that is not named starts from
random ones."""

IMAGENET = Path("imagenet")
"""The weights that keras.applications fetches from its publisher, and keeps."""

NO_WEIGHTS: Weights = MappingProxyType({})

_CAFFE_MEANS = (-103.939, -116.779, -123.68)
"""Of ImageNet, blue, green, red, 0..255. The channels are equal here, so their order is the means' alone."""


def picture(side: int) -> Any:
    """Return the input of a network: (n, side, side, 3)."""
    return keras.Input((side, side, 3), name="picture")


def as_caffe(flow: Any, name: str = "as_caffe") -> Any:
    """Bring 0..1 to what the first ResNets and VGG were trained with."""
    return layers.Rescaling(255.0, _CAFFE_MEANS, name=name)(flow)


def as_signed(flow: Any, name: str = "as_signed") -> Any:
    """Bring 0..1 to -1..1, what ResNetV2 and MobileNetV2 were trained with."""
    return layers.Rescaling(2.0, -1.0, name=name)(flow)


def backbone(name: str, flow: Any, weights: Weights, **options: Any) -> Any:
    """Return the last feature maps of a network of `keras.applications`.

    Args:
        name: its function's name there, such as "ResNet50".
        flow: what it is applied to.
        weights: may name a file for it.
        options: for that function, such as `alpha`.

    Raises:
        FetchError: if it should start from IMAGENET and they cannot be fetched.
        WeightsError: if the file cannot be read or is of another network.
    """
    file = weights.get(name)
    if file is not None and file != IMAGENET and not file.is_file():
        raise WeightsError(f"There is no file of weights at {file}. Give the path of Keras' file for {name} without its top.")
    try:
        made = getattr(keras.applications, name)(
            include_top=False, weights=None if file is None else str(file), input_tensor=flow, **options
        )
    except (ValueError, OSError, KeyError) as error:
        first = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        if file == IMAGENET:
            raise _not_fetched(name, error) from None
        raise WeightsError(f"{file} does not hold weights of {name} without its top: {first}") from None
    except Exception as error:
        # What keras.utils.get_file raises without a network is a bare Exception.
        if file == IMAGENET:
            raise _not_fetched(name, error) from None
        raise
    for layer in made.layers:
        # Two ResNets in one network have layers of one name, which Keras refuses; after loading a name means nothing more.
        if not isinstance(layer, (layers.InputLayer, layers.Rescaling)):
            layer._name = f"{name.lower()}_{layer.name}"
    return made.output


def _not_fetched(name: str, error: Exception) -> FetchError:
    first = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    return FetchError(f"The ImageNet weights of {name} cannot be fetched from here: {first}", name)


def pooled_head(flow: Any, classes: int, dropout: float = 0.0) -> Any:
    """Return logits: the mean of each map, dropout, one dense layer."""
    flow = layers.GlobalAveragePooling2D(name=f"{HEAD}pool")(flow)
    if dropout:
        flow = layers.Dropout(dropout, name=f"{HEAD}dropout")(flow)
    return layers.Dense(classes, name=f"{HEAD}scores")(flow)


def freeze(model: Any, frozen: bool = True) -> None:
    """Hold the backbone still, or let go of it. Batch normalization that is held uses its stored statistics, also in training."""
    for layer in model.layers:
        layer.trainable = not frozen or layer.name.startswith(HEAD)
