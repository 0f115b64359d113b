"""A trial of a network on real pictures: it is built, trained for some steps, converted to int8 and compared with its float self.

It shows that a network works here from end to end and what its int8 file costs. It says nothing of how well the network answers:
that takes whole trainings.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from export.compress.formats import Runner, convert
from export.legacy_keras import keras
from export.networks.catalog import Network, multiply_adds
from export.networks.heads import NO_WEIGHTS, Weights

_RATE = 1e-4
"""P1's and P3's."""
_SURE = 0.25
"""Pictures count as decided whose margin is at least this share of the largest: after some steps a network is sure of little."""


@dataclass(frozen=True)
class Trial:
    """What came out.

    first_loss, last_loss: cross-entropy of the first and the last step. mean_difference: of int8 and float logits, as a share of
    the float logits' range. decided: pictures with a clear margin. agreed: how many of them int8 decides as float does.
    int8_ms: median milliseconds of a picture with one thread.
    """

    name: str
    parameters: int
    multiply_adds: int
    steps: int
    first_loss: float
    last_loss: float
    int8_bytes: int
    mean_difference: float
    decided: int
    agreed: int
    pictures: int
    int8_ms: float


def try_network(
    network: Network,
    pictures: npt.NDArray[np.uint8],
    targets: npt.NDArray[np.int64],
    *,
    classes: int,
    steps: int,
    batch: int = 8,
    rate: float = _RATE,
    weights: Weights = NO_WEIGHTS,
    seed: int = 0,
) -> Trial:
    """Train on `pictures`, convert, and compare on the same pictures.

    Args:
        network: which.
        pictures: shape (n, side, side), uint8; the network is built for that side.
        targets: shape (n,), class indexes.
        classes: how many classes.
        steps: of training.
        batch: pictures a step.
        rate: learning rate of Adam.
        weights: files for its backbones.
        seed: of the weights and of the order of pictures.

    Raises:
        WeightsError: if a file of weights cannot be used.
    """
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = network.build(classes, weights, pictures.shape[1])
    given = np.repeat(pictures[..., np.newaxis], network.channels, axis=3)
    losses = _train(model, given, targets, steps, batch, rate, np.random.default_rng(seed))
    _take_statistics(model, given[: 4 * batch])
    parts = [given[first : first + batch] for first in range(0, len(given), batch)]
    expected = np.concatenate([np.asarray(model(_floats(part), training=False)) for part in parts])
    graph = convert(model, "int8", given[: 2 * batch])
    runner = Runner(graph)
    began = time.perf_counter()
    found = runner.logits(given)
    spent = time.perf_counter() - began
    ordered = np.sort(expected, axis=1)
    margin = ordered[:, -1] - ordered[:, -2]
    decided = margin > _SURE * margin.max()
    return Trial(
        name=network.name,
        parameters=int(model.count_params()),
        multiply_adds=multiply_adds(model),
        steps=steps,
        first_loss=losses[0],
        last_loss=losses[-1],
        int8_bytes=len(graph),
        mean_difference=float(np.abs(found - expected).mean() / np.ptp(expected)),
        decided=int(decided.sum()),
        agreed=int((found.argmax(axis=1) == expected.argmax(axis=1))[decided].sum()),
        pictures=len(given),
        int8_ms=spent / len(given) * 1e3,
    )


def _train(
    model: keras.Model,
    given: npt.NDArray[np.uint8],
    targets: npt.NDArray[np.int64],
    steps: int,
    batch: int,
    rate: float,
    rng: np.random.Generator,
) -> list[float]:
    """Return the loss of each step."""
    model.compile(keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    order = np.concatenate([rng.permutation(len(given)) for _ in range(steps * batch // len(given) + 1)])
    chosen = (order[step * batch : (step + 1) * batch] for step in range(steps))
    return [float(model.train_on_batch(_floats(given[part]), targets[part])) for part in chosen]


def _take_statistics(model: keras.Model, given: npt.NDArray[np.uint8]) -> None:
    """Set batch normalization to the statistics of `given`: after some steps the stored ones are still those of the start."""
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    model(_floats(given), training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum


def _floats(given: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return given.astype(np.float32) / np.float32(255)
