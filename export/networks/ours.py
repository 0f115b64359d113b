"""Our network: borrowed eyes and a small reader of its own.

The eyes are the first thirteen blocks of MobileNetV2 0.35 (Sandler et al. 2018, "MobileNetV2: inverted residuals and linear
bottlenecks") with what they have learned from ImageNet; they are not trained further. There are too few labelled radiographs to
move them: a linear reader on top does better on unseen patients than the whole network fine-tuned, and better than deeper readers
(see `docs/model-development.md`). They take gray pictures, and their batch normalization is folded into the convolutions, so
nothing in the network depends on statistics that a small data set would have to give again.

The reader is two 1x1 convolutions. One looks for lungs, one for signs of each class, and a sign counts only where there is lung:
the class maps are multiplied by the lung map, so what lies outside the lungs cannot speak. The logits are the means of these maps
(after Lin, Chen and Yan 2013, "Network in network"): a map shows exactly what its logit is made of, and a picture without lungs
gives equal logits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.errors import WeightsError
from export.legacy_keras import keras

layers = keras.layers

STRIDE = 16
"""Pixels on a side of the input for each cell of the maps."""
FEATURES = 192
"""Channels of what the eyes give."""
BACKBONE = "MobileNetV2-0.35"
WEIGHTS = Path("weights/mobilenet_v2_0.35_224_imagenet_no_top.weights.h5")
"""Where they are looked for, under the folder of the data."""
LAST_BLOCK = 13
TRAITS_BLOCK = 6
"""Whose expansion is averaged for typicality: early enough to see texture, sharpness and noise, which differ between sources."""

_ALPHA = 0.35
_SIX = 6.0
_MOMENTUM = 0.9
"""Of the running means of batch normalization, where there are any."""


def build(classes: int, side: int, weights: Path | None = None) -> Any:
    """Return the network, a Keras model.

    Args:
        classes: number of classes.
        side: pixels on a side of the input, a multiple of STRIDE.
        weights: of MobileNetV2 0.35 without its top, as Keras publishes them; None for random ones.

    Input: (n, side, side, 1), float32, pixel / 255. Outputs: `scores`, (n, classes), logits; `heat`, (n, side / 16, side / 16,
    classes), the maps whose means are the logits; `traits`, (n, traits), see `edge.typicality`.

    Raises:
        WeightsError: if the weights cannot be read or are of another network.
    """
    return assemble(eyes(side, weights), reader(classes, side // STRIDE))


def assemble(seeing: Any, reading: Any) -> Any:
    """Return the network of these `eyes` and this `reader`, see `build`; its layers all in one, none inside another."""
    trained = reading.get_layer("signs").get_weights(), reading.get_layer("lungs").get_weights()
    read = _read(seeing.output["features"], trained[0][1].shape[0])
    outputs = {"scores": read["scores"], "heat": read["heat"], "traits": seeing.output["traits"]}
    made = keras.Model(seeing.input, outputs, name="cxr")
    made.get_layer("signs").set_weights(trained[0])
    made.get_layer("lungs").set_weights(trained[1])
    return made


def reader(classes: int, rows: int) -> Any:
    """Return the part that is trained: features (n, rows, rows, FEATURES) to `scores`, `heat` and `lungs` (logits, one channel)."""
    features = keras.Input((rows, rows, FEATURES), name="features")
    return keras.Model(features, _read(features, classes), name="reader")


def _read(features: Any, classes: int) -> dict[str, Any]:
    lungs = layers.Conv2D(1, 1, name="lungs")(features)
    signs = layers.Conv2D(classes, 1, name="signs")(features)
    heat = layers.Multiply(name="heat")([signs, layers.Activation("sigmoid", name="gate")(lungs)])
    return {"scores": layers.GlobalAveragePooling2D(name="scores")(heat), "heat": heat, "lungs": lungs}


def eyes(side: int, weights: Path | None = None) -> Any:
    """Return the part that is borrowed: pictures to `features`, (n, side / 16, side / 16, FEATURES), 0..6, and `traits`.

    With weights it is not to be trained further; with random ones, for want of others, it is.
    """
    borrowed = _borrowed(weights)
    convolve = _own if weights is None else _folded
    flow = picture = keras.Input((side, side, 1), name="picture")
    flow = layers.ReLU(_SIX, name="Conv1_relu")(convolve(borrowed, flow, "Conv1", "bn_Conv1"))
    traits = None
    for block in range(LAST_BLOCK + 1):
        name = f"block_{block}" if block else "expanded_conv"
        before = flow
        if block:
            flow = layers.ReLU(_SIX, name=f"{name}_expand_relu")(convolve(borrowed, flow, f"{name}_expand", f"{name}_expand_BN"))
        if block == TRAITS_BLOCK:
            traits = layers.GlobalAveragePooling2D(name="traits")(flow)
        if block == LAST_BLOCK:
            break
        flow = layers.ReLU(_SIX, name=f"{name}_depthwise_relu")(
            convolve(borrowed, flow, f"{name}_depthwise", f"{name}_depthwise_BN")
        )
        flow = convolve(borrowed, flow, f"{name}_project", f"{name}_project_BN")
        if f"{name}_add" in {layer.name for layer in borrowed.layers}:
            flow = layers.Add(name=f"{name}_add")([before, flow])
    made = keras.Model(picture, {"features": flow, "traits": traits}, name="eyes")
    made.trainable = weights is None
    return made


def _borrowed(weights: Path | None) -> Any:
    if weights is not None and not weights.is_file():
        raise WeightsError(
            f"There is no file of weights at {weights}. Give the path of Keras' file for {BACKBONE} without its top."
        )
    network = keras.applications.MobileNetV2((224, 224, 3), alpha=_ALPHA, include_top=False, weights=None)
    if weights is not None:
        try:
            network.load_weights(weights)
        except (ValueError, OSError, KeyError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise WeightsError(f"{weights} does not hold weights of {BACKBONE} without its top: {first}") from None
    return network


def _folded(borrowed: Any, flow: Any, name: str, norm: str) -> Any:
    """Apply a convolution of `borrowed` with the batch normalization that follows it folded in."""
    source = borrowed.get_layer(name)
    (kernel,) = source.get_weights()
    gamma, beta, mean, variance = borrowed.get_layer(norm).get_weights()
    factor = gamma / np.sqrt(variance + borrowed.get_layer(norm).epsilon)
    bias = beta - mean * factor
    if name == "Conv1":
        # Three equal channels of 2 x - 1 become one channel of x: the kernels add up, and what they make of -1 goes into the bias.
        bias = bias - kernel.sum(axis=(0, 1, 2)) * factor
        kernel = 2 * kernel.sum(axis=2, keepdims=True)
    if isinstance(source, layers.DepthwiseConv2D):
        made = layers.DepthwiseConv2D(source.kernel_size, strides=source.strides, padding="same", name=name)
        kernel = kernel * factor[:, np.newaxis]
    else:
        made = layers.Conv2D(source.filters, source.kernel_size, strides=source.strides, padding="same", name=name)
        kernel = kernel * factor
    result = made(flow)
    made.set_weights([kernel, bias])
    return result


def _own(borrowed: Any, flow: Any, name: str, norm: str) -> Any:
    """Apply a convolution like one of `borrowed` and a normalization of its own: random weights could not be trained without."""
    source = borrowed.get_layer(name)
    if isinstance(source, layers.DepthwiseConv2D):
        made = layers.DepthwiseConv2D(source.kernel_size, strides=source.strides, padding="same", use_bias=False, name=name)
    else:
        made = layers.Conv2D(source.filters, source.kernel_size, strides=source.strides, padding="same", use_bias=False, name=name)
    return layers.BatchNormalization(momentum=_MOMENTUM, name=norm)(made(flow))


def centre(model: Any) -> None:
    """Take from the signs of each class the mean over the classes, in place; the softmax stays the same.

    The heat of a class is then what speaks for it rather than for the average of all.
    """
    layer = model.get_layer("signs")
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel - kernel.mean(axis=-1, keepdims=True), bias - bias.mean()])


def take_in(model: Any, mean: npt.NDArray[np.float32], deviation: npt.NDArray[np.float32], factor: float) -> None:
    """Make a reader that was trained on (features - mean) / deviation, with logits times `factor`, one for plain features.

    Args:
        model: of `reader`, changed in place.
        mean: shape (FEATURES,).
        deviation: shape (FEATURES,), above 0.
        factor: of the logits.
    """
    for layer, scale in ((model.get_layer("lungs"), 1.0), (model.get_layer("signs"), factor)):
        kernel, bias = layer.get_weights()
        kernel = kernel / deviation[:, np.newaxis]
        layer.set_weights([kernel * scale, (bias - mean @ kernel[0, 0]) * scale])


def give_back(model: Any, mean: npt.NDArray[np.float32], deviation: npt.NDArray[np.float32], factor: float) -> None:
    """Undo `take_in`: make a reader for plain features one for (features - mean) / deviation, with logits divided by `factor`."""
    for layer, scale in ((model.get_layer("lungs"), 1.0), (model.get_layer("signs"), factor)):
        kernel, bias = layer.get_weights()
        layer.set_weights([kernel * deviation[:, np.newaxis] / scale, (bias + mean @ kernel[0, 0]) / scale])
