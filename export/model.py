"""One finished model: trained, quantized, calibrated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.network.classify import Classifier
from edge.network.typicality import Typicality
from export.calibrate import MISCOVERAGE, fit_thresholds
from export.dataset import CLASSES, Pixels, Sample, patients
from export.networks.ours import assemble
from export.quantize import quantize
from export.runtimes import New
from export.splits import Split
from export.train import Lesson, Recipe, as_reader, find_lungs, find_signs, left_out, look, teaching
from export.typicality import crossed_typicality

UNFAMILIAR = 0.25
"""Pictures of a lower typicality get no answer: this share of known pictures pays for it."""

Floats = npt.NDArray[np.float64]
Indexes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Finished:
    """A network and all that turns its scores into answers.

    graph: the int8 file. network: the float network of the same weights. temperature, candidate, sensitivity: see
    `edge.contract.bundle.Manifest`.
    """

    graph: bytes
    network: Any
    temperature: float
    candidate: float
    sensitivity: dict[str, dict[str, float]]
    typicality: Typicality


@dataclass(frozen=True)
class Seen:
    """What an int8 graph gave for n pictures: logits (n, classes), heat (n, rows, rows, classes), traits (n, traits)."""

    logits: Floats
    heat: npt.NDArray[np.float32]
    traits: npt.NDArray[np.float32]


def finish(
    eyes: Any, pixels: Pixels, samples: list[Sample], lesson: Lesson, split: Split, hand: Indexes, recipe: Recipe, shown: Pixels
) -> Finished:
    """Make a model of the training and the validation part, calibrated on them too; the test part is not touched.

    Calibration needs pictures that the model has not learned from, and there are too few to give any away: hands of patients are
    left out in turn, and the signs learned from the others say what they are. To that is added by how much the int8 file says
    something else than the signs of all. The lung map alone is that of all throughout.

    Args:
        eyes: of `export.networks.ours.eyes`, for INPUT_SIDE.
        pixels: shape (n, INPUT_SIDE, INPUT_SIDE), of all samples.
        samples: all of them.
        lesson: `chosen` may hold samples besides the training part that teach nothing of classes.
        split: of the samples.
        hand: shape (n,); all pictures of a patient in one.
        recipe: of the training.
        shown: pictures on which the ranges inside the network are measured, shape (m, INPUT_SIDE, INPUT_SIDE); those of the
            training and the validation part with the most extreme scores are added.
    """
    whole = replace(lesson, chosen=np.concatenate([lesson.chosen, split.validation]))
    taught, lungs = teaching(whole), find_lungs(whole, recipe)
    pooled = look(whole, lungs)
    signs = find_signs(pooled, recipe)
    network = assemble(eyes, as_reader(lungs, signs, lesson.views.features.shape[2]))
    expected = pooled.plain @ signs
    graph = quantize(network, np.concatenate([shown, pixels[taught[_extremes(expected)]]]))
    seen = run(graph, pixels[taught])
    logits = left_out(pooled, hand[taught], recipe, signs) + seen.logits - expected
    known = pooled.allowed.sum(axis=1) == 1
    found = fit_thresholds(logits[known], pooled.allowed[known].argmax(axis=1), CLASSES, MISCOVERAGE)
    return Finished(
        graph=graph,
        network=network,
        temperature=found.temperature,
        candidate=found.candidate,
        sensitivity=found.sensitivity,
        typicality=crossed_typicality(seen.traits, pooled.source, patients([samples[i] for i in taught]), UNFAMILIAR),
    )


def _extremes(scores: Floats) -> Indexes:
    """Return which pictures have the least and the greatest score of a class: no score of the others is then cut off."""
    return np.unique([scores.argmin(axis=0), scores.argmax(axis=0)])


def run(graph: bytes, pixels: Pixels, new: New | None = None) -> Seen:
    """Run an int8 graph by the device's own code; new: of another runtime, see `export.runtimes`."""
    classifier = Classifier(graph, threads=1, new=new)
    scores = [classifier.run(picture) for picture in pixels]
    return Seen(
        logits=np.stack([score.logits for score in scores]).astype(np.float64),
        heat=np.stack([score.heat for score in scores]),
        traits=np.stack([score.traits for score in scores]),
    )


def float_logits(network: Any, pixels: Pixels) -> Floats:
    """Run the float network; shape (n, classes)."""
    parts = [pixels[i : i + 64].astype(np.float32)[..., np.newaxis] / 255.0 for i in range(0, len(pixels), 64)]
    return np.concatenate([np.asarray(network(part, training=False)["scores"]) for part in parts]).astype(np.float64)
