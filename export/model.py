"""One finished model: trained, pruned, quantized, calibrated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.classify import Classifier
from export.calibrate import fit_biases, fit_temperature, fit_threshold
from export.dataset import CLASSES, Pixels, Sample, targets
from export.networks.ours import lean_against
from export.prune import prune, sparsity
from export.quantize import fixed_size, quantize
from export.splits import Indexes, Split
from export.train import Recipe, TrainingSet, settle_statistics, train

_REPRESENTATIVE = 100
"""Training pictures on which the ranges inside the network are measured."""


@dataclass(frozen=True)
class Finished:
    """graph: the int8 file. network: the float network of the same weights. sparsity: share of zeros in the pruned layers."""

    graph: bytes
    network: Any
    temperature: float
    threshold: float
    sparsity: float


def finish(pixels: Pixels, samples: list[Sample], split: Split, recipe: Recipe, start: Any = None) -> Finished:
    """Make a model of the training part; temperature and threshold of the validation part; the test part is not touched.

    `start` is a network to start from, see `export.train.train`.
    """
    data = training_set(pixels, samples, split.train)
    network = train(data, recipe, recipe.phases, start)
    prune(network, data, recipe, np.random.default_rng((recipe.seed, 1)))
    settle_statistics(network, data.pixels, np.random.default_rng((recipe.seed, 3)))
    fixed = fixed_size(network, len(CLASSES), recipe.plan)
    held_out = targets([samples[i] for i in split.validation])
    lean_against(fixed, fit_biases(float_logits(fixed, pixels[split.validation]), held_out))
    chosen = np.random.default_rng((recipe.seed, 2)).permutation(len(data.pixels))[:_REPRESENTATIVE]
    graph = quantize(fixed, data.pixels[chosen])
    logits = int8_logits(graph, pixels[split.validation])
    temperature = fit_temperature(logits, held_out)
    return Finished(graph, fixed, temperature, fit_threshold(logits, temperature), sparsity(network))


def training_set(pixels: Pixels, samples: list[Sample], indexes: Indexes, classes: int = len(CLASSES)) -> TrainingSet:
    """Return the chosen samples; groups are (label, source). `classes` is how many of CLASSES, from the first on, they hold."""
    chosen = [samples[i] for i in indexes]
    names = sorted({(sample.label, sample.source) for sample in chosen})
    groups = np.array([names.index((sample.label, sample.source)) for sample in chosen], dtype=np.int64)
    return TrainingSet(pixels[indexes], targets(chosen), groups, classes)


def int8_logits(graph: bytes, pixels: Pixels) -> npt.NDArray[np.float64]:
    """Run the int8 graph by the device's own code; shape (n, classes)."""
    classifier = Classifier(graph, threads=1)
    return np.stack([classifier.run(picture).logits for picture in pixels]).astype(np.float64)


def float_logits(network: Any, pixels: Pixels) -> npt.NDArray[np.float64]:
    """Run the float network; shape (n, classes)."""
    parts = [pixels[i : i + 64].astype(np.float32)[..., np.newaxis] / 255.0 for i in range(0, len(pixels), 64)]
    return np.concatenate([np.asarray(network(part, training=False)["scores"]) for part in parts]).astype(np.float64)
