"""Every network that can be trained here, with its source, its size and its work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from export.errors import ExportError, WeightsError
from export.legacy_keras import keras
from export.networks import borrowed, from_scratch, ours, p3
from export.networks.heads import NO_WEIGHTS, Weights


@dataclass(frozen=True)
class Network:
    """One row of the catalogue.

    name: what the command line calls it. source: publication. side, channels: of its input. backbones: those that may start
    from weights of others. make: (classes, weights, side) -> Keras model. large: training it on two cores takes days.
    """

    name: str
    source: str
    side: int
    channels: int
    make: Callable[[int, Weights, int], Any]
    backbones: tuple[str, ...] = ()
    large: bool = False

    def build(self, classes: int, weights: Weights = NO_WEIGHTS, side: int | None = None) -> Any:
        """Return the network, whose only output is the logits, (n, classes).

        Args:
            classes: how many.
            weights: files for `backbones`.
            side: pixels on a side, if not that of the publication.

        Raises:
            WeightsError: if a file cannot be used, or is for a backbone that this network does not have.
        """
        for name in weights:
            if name not in self.backbones:
                has = " and ".join(self.backbones) or "none that could start from weights"
                raise WeightsError(f"{self.name} has no backbone {name}; it has {has}.")
        return self.make(classes, weights, side or self.side)


def _plain(make: Callable[[int, int], Any]) -> Callable[[int, Weights, int], Any]:
    return lambda classes, weights, side: make(classes, side)


def _ours(classes: int, weights: Weights, side: int) -> Any:
    made = ours.build(classes, side, weights.get(ours.BACKBONE))
    return keras.Model(made.input, made.output["scores"], name="ours")


CATALOG: tuple[Network, ...] = (
    Network("ours", "this project", 192, 1, _ours, (ours.BACKBONE,)),
    Network("p3", "P3, own CNN", 200, 3, _plain(p3.build_p3)),
    Network("p1-resnet50", "P1", 224, 3, borrowed.resnet50_p1, ("ResNet50",), large=True),
    Network("p1-alexnet", "P1, comparison", 224, 3, _plain(from_scratch.alexnet), large=True),
    Network("p1-vgg19", "P1, comparison", 224, 3, borrowed.vgg19_p1, ("VGG19",), large=True),
    Network("p2-resnet50", "P2", 224, 3, borrowed.resnet50_p2, ("ResNet50",), large=True),
    Network("p4-covidnet", "P4, after COVID-Net", 224, 3, _plain(from_scratch.covidnet_p4)),
    Network("p4-fusion", "P4, ResNet101 + ResNet152", 224, 3, borrowed.fusion_p4, ("ResNet101", "ResNet152"), large=True),
    Network("p5-resnet50", "P5, first part", 256, 3, borrowed.resnet50_p5, ("ResNet50",), large=True),
    Network("p5-resnet152v2", "P5, second part", 256, 3, borrowed.resnet152v2_p5, ("ResNet152V2",), large=True),
    Network("p5-concatenated", "P5", 256, 3, borrowed.concatenated_p5, ("ResNet50", "ResNet152V2"), large=True),
    Network("mobilenet-v2-0.35", "Sandler et al. 2018", 224, 3, partial(borrowed.mobilenet_v2, alpha=0.35), ("MobileNetV2",)),
    Network("mobilenet-v2-1.0", "Sandler et al. 2018", 224, 3, borrowed.mobilenet_v2, ("MobileNetV2",)),
    Network("darkcovidnet", "Ozturk et al. 2020, the peer", 256, 3, _plain(from_scratch.darkcovidnet)),
)


def find(name: str) -> Network:
    """Return the network of that name.

    Raises:
        ExportError: if there is none.
    """
    for network in CATALOG:
        if network.name == name:
            return network
    raise ExportError(f"There is no network {name!r}. `cxr-export networks` lists them.")


def multiply_adds(model: Any) -> int:
    """Return the multiplications with following additions of one picture, in convolutions and dense layers."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            _, height, width, channels = layer.output_shape
            total += height * width * channels * layer.kernel_size[0] * layer.kernel_size[1]
        elif isinstance(layer, keras.layers.Conv2D):
            _, height, width, channels = layer.output_shape
            total += height * width * channels * int(layer.kernel.shape[0] * layer.kernel.shape[1] * layer.kernel.shape[2])
        elif isinstance(layer, keras.layers.Dense):
            total += int(layer.kernel.shape[0] * layer.kernel.shape[1])
    return total
