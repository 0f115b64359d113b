"""Our network: borrowed eyes and a small reader of its own.

The eyes are the first thirteen blocks of MobileNetV2 0.35 (Sandler et al. 2018, "MobileNetV2: inverted residuals and linear
bottlenecks") with what they have learned from ImageNet; they are not trained further. There are too few labelled radiographs to
move them: a linear reader on top does better on unseen patients than the whole network fine-tuned, and better than deeper readers
(see `docs/model-development.md`). They take gray pictures, and their batch normalization is folded into the convolutions, so
nothing in the network depends on statistics that a small data set would have to give again. The projection of the first block and
the expansion of the second, with nothing between them, are one convolution: the values between them had a few extremes and little
else, and eight bits for these were where int8 lost most.

The reader is two 1x1 convolutions over three depths of the eyes at once. One looks for the lungs and what lies between them, one
for signs of each class, and a sign counts only there: the class maps are multiplied by the lung map, so what lies outside cannot
speak. The logits are the means of these maps (after Lin, Chen and Yan 2013, "Network in network"): a map shows exactly what its
logit is made of, and a picture without lungs gives equal logits.
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
READ = ("block_10_depthwise_relu", "block_12_depthwise_relu", "block_13_expand_relu")
"""Where the reader reads: three depths of the same resolution."""
FEATURES = 144 + 192 + 192
"""Channels of what the eyes give."""
GATHERED = "features"
"""The layer that puts them side by side."""
BACKBONE = "MobileNetV2-0.35"
WEIGHTS = Path("weights/mobilenet_v2_0.35_224_imagenet_no_top.weights.h5")
"""Where they are looked for, under the folder of the data."""
LAST_BLOCK = 13
TRAITS_BLOCK = 6
"""Whose depthwise features are averaged for typicality: early enough for texture, sharpness and noise, which differ by source."""

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
    classes), the maps whose means are the logits; `traits`, (n, traits), see `edge.network.typicality`.

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


def with_maps(model: Any) -> Any:
    """Return the network of all outputs, see `build`, where `model` is the same with the logits alone."""
    traits = layers.GlobalAveragePooling2D(name="traits")(model.get_layer(f"block_{TRAITS_BLOCK}_depthwise_relu").output)
    outputs = {"scores": model.output, "heat": model.get_layer("heat").output, "traits": traits}
    return keras.Model(model.input, outputs, name="cxr")


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
    traits, read = None, {}
    for block in range(LAST_BLOCK + 1):
        name = f"block_{block}" if block else "expanded_conv"
        before = flow
        if block:
            flow = layers.ReLU(_SIX, name=f"{name}_expand_relu")(convolve(borrowed, flow, f"{name}_expand", f"{name}_expand_BN"))
            read[f"{name}_expand_relu"] = flow
        if block == LAST_BLOCK:
            break
        flow = layers.ReLU(_SIX, name=f"{name}_depthwise_relu")(
            convolve(borrowed, flow, f"{name}_depthwise", f"{name}_depthwise_BN")
        )
        read[f"{name}_depthwise_relu"] = flow
        if block == TRAITS_BLOCK:
            traits = layers.GlobalAveragePooling2D(name="traits")(flow)
        if not block:
            continue  # what comes next is in the expansion of block 1, see _fold
        flow = convolve(borrowed, flow, f"{name}_project", f"{name}_project_BN")
        if f"{name}_add" in {layer.name for layer in borrowed.layers}:
            flow = layers.Add(name=f"{name}_add")([before, flow])
    features = layers.Concatenate(name=GATHERED)([read[name] for name in READ])
    made = keras.Model(picture, {"features": features, "traits": traits}, name="eyes")
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
    kernel, bias = _fold(borrowed, name, norm)
    if isinstance(source, layers.DepthwiseConv2D):
        made = layers.DepthwiseConv2D(source.kernel_size, strides=source.strides, padding="same", name=name)
    else:
        made = layers.Conv2D(source.filters, source.kernel_size, strides=source.strides, padding="same", name=name)
    result = made(flow)
    made.set_weights([kernel, bias])
    return result


def _fold(borrowed: Any, name: str, norm: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    source = borrowed.get_layer(name)
    (kernel,) = source.get_weights()
    gamma, beta, mean, variance = borrowed.get_layer(norm).get_weights()
    factor = gamma / np.sqrt(variance + borrowed.get_layer(norm).epsilon)
    bias = beta - mean * factor
    if name == "Conv1":
        # Three equal channels of 2 x - 1 become one channel of x: the kernels add up, and what they make of -1 goes into the bias.
        bias = bias - kernel.sum(axis=(0, 1, 2)) * factor
        kernel = 2 * kernel.sum(axis=2, keepdims=True)
    kernel = kernel * (factor[:, np.newaxis] if isinstance(source, layers.DepthwiseConv2D) else factor)
    if name == "block_1_expand":
        first, shift = _fold(borrowed, "expanded_conv_project", "expanded_conv_project_BN")
        kernel, bias = first @ kernel[0, 0], bias + shift @ kernel[0, 0]
    return kernel, bias


def _own(borrowed: Any, flow: Any, name: str, norm: str) -> Any:
    """Apply a convolution like one of `borrowed` and a normalization of its own: random weights could not be trained without."""
    source = borrowed.get_layer(name)
    if isinstance(source, layers.DepthwiseConv2D):
        made = layers.DepthwiseConv2D(source.kernel_size, strides=source.strides, padding="same", use_bias=False, name=name)
    else:
        made = layers.Conv2D(source.filters, source.kernel_size, strides=source.strides, padding="same", use_bias=False, name=name)
    return layers.BatchNormalization(momentum=_MOMENTUM, name=norm)(made(flow))
