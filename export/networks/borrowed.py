"""Networks made of backbones that others have trained: those of P1, P2, P4's fusion and P5, and MobileNetV2."""

from __future__ import annotations

from typing import Any

from export.legacy_keras import keras
from export.networks.heads import HEAD, Weights, as_caffe, as_signed, backbone, picture, pooled_head

layers = keras.layers

_P1_DROPOUT = 0.5
_P5_FILTERS = 1024


def resnet50_p1(classes: int, weights: Weights, side: int = 224) -> Any:
    """P1: ResNet50, global average pooling, dropout 0.5."""
    image = picture(side)
    return keras.Model(image, pooled_head(backbone("ResNet50", as_caffe(image), weights), classes, _P1_DROPOUT), name="p1_resnet50")


def vgg19_p1(classes: int, weights: Weights, side: int = 224) -> Any:
    """P1's comparison: VGG19 with the same head."""
    image = picture(side)
    return keras.Model(image, pooled_head(backbone("VGG19", as_caffe(image), weights), classes, _P1_DROPOUT), name="p1_vgg19")


def resnet50_p2(classes: int, weights: Weights, side: int = 224) -> Any:
    """P2: ResNet50, its last three layers replaced by a fully connected layer (the softmax is in the loss)."""
    image = picture(side)
    return keras.Model(image, pooled_head(backbone("ResNet50", as_caffe(image), weights), classes), name="p2_resnet50")


def resnet50_p5(classes: int, weights: Weights, side: int = 256) -> Any:
    """P5's first part alone."""
    image = picture(side)
    return keras.Model(image, pooled_head(backbone("ResNet50", as_caffe(image), weights), classes), name="p5_resnet50")


def resnet152v2_p5(classes: int, weights: Weights, side: int = 256) -> Any:
    """P5's second part alone."""
    image = picture(side)
    return keras.Model(image, pooled_head(backbone("ResNet152V2", as_signed(image), weights), classes), name="p5_resnet152v2")


def concatenated_p5(classes: int, weights: Weights, side: int = 256) -> Any:
    """P5: the maps of both side by side, a 1x1 convolution with 1024 filters and no activation, classifier."""
    image = picture(side)
    first = backbone("ResNet50", as_caffe(image), weights)
    second = backbone("ResNet152V2", as_signed(image), weights)
    both = layers.Concatenate(name=f"{HEAD}concatenate")([first, second])
    mixed = layers.Conv2D(_P5_FILTERS, 1, name=f"{HEAD}mix")(both)
    return keras.Model(image, pooled_head(mixed, classes), name="p5_concatenated")


def mobilenet_v2(classes: int, weights: Weights, side: int = 224, alpha: float = 1.0) -> Any:
    """MobileNetV2 of a width, with a pooled head."""
    image = picture(side)
    flow = backbone("MobileNetV2", as_signed(image), weights, alpha=alpha)
    return keras.Model(image, pooled_head(flow, classes), name="mobilenet_v2")


@keras.utils.register_keras_serializable("cxr")
class LearnedRatio(keras.layers.Layer):  # type: ignore[misc]
    """ratio * first + (1 - ratio) * second, with one ratio between 0 and 1 that is learned; it starts at a half."""

    def build(self, input_shape: Any) -> None:
        """Make the one weight, the logit of the ratio."""
        self.logit = self.add_weight(name="logit", shape=(), initializer="zeros", trainable=True)
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        """Mix two tensors of one shape."""
        first, second = inputs
        ratio = keras.activations.sigmoid(self.logit)
        return ratio * first + (1.0 - ratio) * second

    def ratio(self) -> float:
        """Return the share of the first input."""
        return float(keras.activations.sigmoid(self.logit))


def fusion_p4(classes: int, weights: Weights, side: int = 224) -> Any:
    """P4: ResNet101 and ResNet152, each with its own logits, mixed by a ratio that training adapts."""
    image = picture(side)
    scores = []
    for name in ("ResNet101", "ResNet152"):
        pooled = layers.GlobalAveragePooling2D(name=f"{HEAD}pool_{name.lower()}")(
            backbone(name, as_caffe(image, f"as_caffe_{name.lower()}"), weights)
        )
        scores.append(layers.Dense(classes, name=f"{HEAD}scores_{name.lower()}")(pooled))
    return keras.Model(image, LearnedRatio(name=f"{HEAD}ratio")(scores), name="p4_fusion")
