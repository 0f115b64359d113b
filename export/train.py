"""Training: first on small pictures, which is fast, then at the full size.

A network that ends in a mean over its maps accepts any size. Most of what separates these classes is coarse: at half the side an
epoch costs a quarter, and a few epochs at the full size bring the network to what the device will show it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from export.augment import Strength, augment
from export.legacy_keras import keras
from export.networks.ours import Plan, build

_SETTLING_BATCH = 32
_SETTLING_MOMENTUM = 0.95


@dataclass(frozen=True)
class Phase:
    """A part of the training. shrink: factor by which the side is divided. rate: highest learning rate (warm-up, then cosine)."""

    shrink: int
    epochs: int
    rate: float


@dataclass(frozen=True)
class Recipe:
    """Everything that the result of a training depends on, besides the data.

    pretrain: on another data set. phases: of the training. prune: the last phase, at the full size, in which the network is pruned.
    smoothing: label smoothing. decay: AdamW's weight decay. balance: 0 draws pictures as they are, 1 draws every group
    (label, source) equally often. sparsity: share of zeros after pruning.
    """

    plan: Plan = field(default_factory=Plan)
    strength: Strength = field(default_factory=Strength)
    pretrain: Phase = Phase(2, 8, 3e-3)
    phases: tuple[Phase, ...] = (Phase(2, 20, 2e-3),)
    prune: Phase = Phase(1, 6, 8e-4)
    sparsity: float = 0.5
    batch: int = 32
    smoothing: float = 0.05
    decay: float = 0.02
    balance: float = 0.5
    seed: int = 0


@dataclass(frozen=True)
class TrainingSet:
    """pixels: (n, side, side), uint8. targets: (n,), class indexes. groups: (n,), codes of (label, source). classes: how many."""

    pixels: npt.NDArray[np.uint8]
    targets: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    classes: int


def train(data: TrainingSet, recipe: Recipe, phases: tuple[Phase, ...], start: Any = None) -> Any:
    """Return the trained network for any input size (see `export.networks.ours.build`), without pruning.

    Args:
        data: what it learns from.
        recipe: how.
        phases: one after the other.
        start: a network of the same plan whose weights it starts from, but for the last layer; None starts from random ones.
    """
    keras.utils.set_random_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    model = build(data.classes, None, recipe.plan)
    for layer in start.layers if start is not None else ():
        if layer.name != "heat":
            model.get_layer(layer.name).set_weights(layer.get_weights())
    for phase in phases:
        fit(keras.Model(model.input, model.output["scores"]), data, phase, recipe, rng)
    return model


def fit(
    trainee: Any, data: TrainingSet, phase: Phase, recipe: Recipe, rng: np.random.Generator, callbacks: tuple[Any, ...] = ()
) -> None:
    """Run one phase on a model with the logits as its only output."""
    steps = max(len(data.targets) // recipe.batch, 1)
    total = steps * phase.epochs
    warm = min(2 * steps, max(total // 5, 1))
    rate = keras.optimizers.schedules.CosineDecay(
        phase.rate * 0.02, max(total - warm, 1), alpha=0.01, warmup_target=phase.rate, warmup_steps=warm
    )
    trainee.compile(
        optimizer=keras.optimizers.AdamW(rate, weight_decay=recipe.decay),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.smoothing),
    )
    batches = _batches(data, phase.shrink, recipe, rng)
    trainee.fit(batches, steps_per_epoch=steps, epochs=phase.epochs, verbose=0, callbacks=list(callbacks))


def _batches(data: TrainingSet, shrink: int, recipe: Recipe, rng: np.random.Generator) -> Iterator[Any]:
    """Yield (pictures, labels) for ever."""
    sizes = np.bincount(data.groups)
    weights = sizes[data.groups].astype(np.float64) ** -recipe.balance
    weights /= weights.sum()
    pixels = _shrunk(data.pixels, shrink)
    one_hot = np.eye(data.classes, dtype=np.float32)[data.targets]
    while True:
        drawn = rng.choice(len(weights), recipe.batch, p=weights)
        pictures, labels = augment(pixels[drawn], one_hot[drawn], recipe.strength, rng)
        yield pictures, labels


def _shrunk(pixels: npt.NDArray[np.uint8], shrink: int) -> npt.NDArray[np.uint8]:
    """Average squares of `shrink` pixels on a side."""
    n, side = len(pixels), pixels.shape[1] // shrink
    squares = pixels.reshape(n, side, shrink, side, shrink)
    return np.asarray(squares.mean(axis=(2, 4), dtype=np.float32).round(), dtype=np.uint8)


def settle_statistics(model: Any, pixels: npt.NDArray[np.uint8], rng: np.random.Generator, passes: int = 3) -> None:
    """Measure the batch normalization statistics of `model` again, in place, on training pictures as they are.

    Those of the training are of mixed and distorted pictures, which the network will not meet again.

    Args:
        model: of `export.networks.ours.build`.
        pixels: shape (n, side, side), uint8.
        rng: the order of the pictures.
        passes: how often all are shown.
    """
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    trainee = keras.Model(model.input, model.output["scores"])
    batch = min(_SETTLING_BATCH, len(pixels))
    for layer in norms:
        layer.momentum = _SETTLING_MOMENTUM
    for _ in range(passes):
        order = rng.permutation(len(pixels))
        for first in range(0, len(pixels) - batch + 1, batch):
            chosen = pixels[order[first : first + batch]]
            trainee(chosen.astype(np.float32)[..., np.newaxis] / 255.0, training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
