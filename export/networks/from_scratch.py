"""Networks of the publications that have no borrowed backbone: AlexNet, P4's network, and DarkCovidNet, the peer."""

from __future__ import annotations

from typing import Any

from export.legacy_keras import keras
from export.networks.heads import HEAD, picture

layers = keras.layers

DARKCOVIDNET_PARAMETERS = 1_164_434
"""Published for two classes (Ozturk et al. 2020, "Automated detection of COVID-19 cases using deep neural networks with X-ray
images", table of layers): 1,160,536 in convolutions, 3,220 in batch normalization, 678 in the last layer."""

_LEAK = 0.1


def alexnet(classes: int, side: int = 224) -> Any:
    """AlexNet in one tower (Krizhevsky et al. 2012), P1's comparison.

    Local response normalization, which no int8 runtime has, is batch normalization here.
    """
    image = picture(side)
    flow = image
    for number, (filters, kernel, stride, pool) in enumerate(
        ((96, 11, 4, True), (256, 5, 1, True), (384, 3, 1, False), (384, 3, 1, False), (256, 3, 1, True))
    ):
        padding = "valid" if number == 0 else "same"
        flow = layers.Conv2D(filters, kernel, stride, padding, activation="relu", name=f"conv{number}")(flow)
        if number < 2:
            flow = layers.BatchNormalization(name=f"conv{number}_norm")(flow)
        if pool:
            flow = layers.MaxPooling2D(3, 2, name=f"conv{number}_pool")(flow)
    flow = layers.Flatten(name="flatten")(flow)
    for number in range(2):
        flow = layers.Dense(4096, activation="relu", name=f"dense{number}")(flow)
        flow = layers.Dropout(0.5, name=f"dense{number}_dropout")(flow)
    return keras.Model(image, layers.Dense(classes, name=f"{HEAD}scores")(flow), name="p1_alexnet")


def darkcovidnet(classes: int, side: int = 256) -> Any:
    """DarkCovidNet's published layout: 17 convolutions, each with batch normalization.

    Every convolution is padded by one pixel on all sides, also the 1x1 ones, which therefore grow their maps by two: the published
    sizes (66, 35, 19, 11 and 13 pixels) come out only so. Its dense layer looks at every pixel of the last maps.
    """
    image = picture(side)
    flow = image
    for number, step in enumerate((8, 0, 16, 0, (32, 16, 32), 0, (64, 32, 64), 0, (128, 64, 128), 0, (256, 128, 256))):
        if step == 0:
            flow = layers.MaxPooling2D(2, name=f"pool{number}")(flow)
            continue
        filters = step if isinstance(step, tuple) else (step,)
        for place, count in enumerate(filters):
            flow = _dark(flow, count, 1 if place == 1 else 3, f"conv{number}_{place}")
    flow = _dark(flow, 128, 1, "last0")
    flow = _dark(flow, 256, 3, "last1")
    flow = layers.ZeroPadding2D(1, name="maps_pad")(flow)
    flow = layers.Conv2D(classes, 3, use_bias=False, name="maps")(flow)
    flow = layers.BatchNormalization(name="maps_norm")(flow)
    flow = layers.ReLU(name="maps_relu")(flow)
    flow = layers.Flatten(name=f"{HEAD}flatten")(flow)
    return keras.Model(image, layers.Dense(classes, name=f"{HEAD}scores")(flow), name="darkcovidnet")


def _dark(flow: Any, filters: int, kernel: int, name: str) -> Any:
    flow = layers.ZeroPadding2D(1, name=f"{name}_pad")(flow)
    flow = layers.Conv2D(filters, kernel, use_bias=False, name=name)(flow)
    flow = layers.BatchNormalization(name=f"{name}_norm")(flow)
    return layers.LeakyReLU(_LEAK, name=f"{name}_leak")(flow)


def covidnet_p4(
    classes: int,
    side: int = 224,
    stages: tuple[tuple[int, int], ...] = ((128, 2), (256, 2), (512, 2), (1024, 2)),
) -> Any:
    """P4's network after COVID-Net (Wang et al. 2020): blocks of projection, expansion, projection, extension.

    Args:
        classes: number of classes.
        side: pixels on a side.
        stages: (channels, blocks) of each stage; a stage begins with half the resolution. P4 names the design and not its sizes:
            these are half of COVID-Net's channels, with a pooled head in the place of its large dense layers.
    """
    image = picture(side)
    flow = layers.Conv2D(64, 7, 2, "same", use_bias=False, name="stem")(image)
    flow = layers.BatchNormalization(name="stem_norm")(flow)
    flow = layers.ReLU(name="stem_relu")(flow)
    for stage, (channels, blocks) in enumerate(stages):
        flow = layers.MaxPooling2D(2, name=f"stage{stage}_pool")(flow)
        shortcut = _point(flow, channels, f"stage{stage}_shortcut")
        for block in range(blocks):
            flow = _pepx(flow, channels, f"stage{stage}_block{block}")
            # Long-range connections: the stage's input reaches every one of its blocks.
            flow = layers.Add(name=f"stage{stage}_block{block}_add")([flow, shortcut])
    flow = layers.GlobalAveragePooling2D(name=f"{HEAD}pool")(flow)
    return keras.Model(image, layers.Dense(classes, name=f"{HEAD}scores")(flow), name="p4_covidnet")


def _pepx(flow: Any, channels: int, name: str) -> Any:
    """1x1 projection to half, 1x1 expansion, depthwise 3x3, 1x1 projection back, 1x1 extension to the output's channels."""
    half = flow.shape[-1] // 2
    flow = _point(flow, half, f"{name}_project")
    flow = _point(flow, int(half * 1.5), f"{name}_expand")
    flow = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"{name}_depth")(flow)
    flow = layers.BatchNormalization(name=f"{name}_depth_norm")(flow)
    flow = layers.ReLU(name=f"{name}_depth_relu")(flow)
    flow = _point(flow, half, f"{name}_project_back")
    return _point(flow, channels, f"{name}_extend")


def _point(flow: Any, channels: int, name: str) -> Any:
    flow = layers.Conv2D(channels, 1, use_bias=False, name=name)(flow)
    flow = layers.BatchNormalization(name=f"{name}_norm")(flow)
    return layers.ReLU(name=f"{name}_relu")(flow)
