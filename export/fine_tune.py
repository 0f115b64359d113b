"""The reader of a bundle's network trained further on a hospital's pictures, and held back by the weights that it had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from export.adapt_data import Part
from export.calibrate import Floats, probabilities
from export.compress.representative import representative_by_patient
from export.dataset import load_lungs
from export.networks.ours import assemble
from export.quantize import quantize
from export.reopen import reopened
from export.splits import deal
from export.train import Lesson, Recipe, Start, train
from export.views import Int8Eyes, Views, make_views

RECIPE = Recipe(epochs=20, rate=3e-3)
PULLS = (1.0, 10.0, 100.0, 1000.0)
"""Tried for `Start.pull` times the number of pictures: what the old weights weigh against the loss of all pictures together.

A pull that does not fall with the number of pictures is what a Gaussian prior around the old weights amounts to: the fewer
pictures, the less they move (Li, Grandvalet and Davoine 2018, "Explicit inductive bias for transfer learning").
"""
_FOLDS = 3
_REPRESENTATIVE = 100


@dataclass(frozen=True)
class Tuned:
    """graph: the int8 file. pull: the chosen one of PULLS, None if the old weights were the best. losses: of each, held-out.

    The losses are mean negative log-likelihoods of training patients that were left out in turn; "as it was" is without training.
    """

    graph: bytes
    pull: float | None
    losses: dict[str, float]


def fine_tune(
    graph: bytes, classes: Sequence[str], part: Part, *, seed: int, recipe: Recipe = RECIPE, pulls: Sequence[float] = PULLS
) -> Tuned:
    """Train the reader of a bundle further; its eyes stay as they are.

    How strongly the old weights hold it back is chosen on training patients left out in turn; if no training does better than the
    old weights there, they stay.

    Args:
        graph: of the bundle.
        classes: of the bundle, in the order of its outputs.
        part: the training part.
        seed: of everything.
        recipe: of the training; its penalty is not used.
        pulls: see PULLS.

    Raises:
        WeightsError: if the network is not ours.
    """
    side = part.pixels.shape[1]
    seeing, reading = reopened(graph, len(classes), side)
    representative = part.pixels[representative_by_patient(part.samples, _REPRESENTATIVE, seed)]
    fold = deal(part.samples, _FOLDS, seed)
    lungs = np.zeros(part.pixels.shape, dtype=np.bool_)
    masked = np.array([sample.lung_mask is not None for sample in part.samples])
    if masked.any():
        lungs[masked] = load_lungs([sample for sample in part.samples if sample.lung_mask is not None])
    views = make_views(Int8Eyes(seeing, representative), part.pixels, lungs, fold, recipe.strength, count=recipe.views, seed=seed)
    everyone = np.arange(len(part.samples))
    allowed = np.eye(len(classes), dtype=np.float32)[part.truth]
    lesson = Lesson(views, allowed, masked, everyone, np.ones(len(everyone)))
    seeded = replace(recipe, seed=seed)
    losses = {"as it was": _loss(reading, views, part, everyone)}
    for pull in pulls:
        total = 0.0
        for held in range(_FOLDS):
            rest, out = np.flatnonzero(fold != held), np.flatnonzero(fold == held)
            made = train(replace(lesson, chosen=rest), seeded, Start(reading, pull / len(rest)))
            total += _loss(made, views, part, out) * len(out)
        losses[f"{pull:g}"] = total / len(everyone)
    best = min(losses, key=lambda name: losses[name])
    kept = None if best == "as it was" else float(best)
    if kept is not None:
        reading = train(lesson, seeded, Start(reading, kept / len(everyone)))
    rounded = {name: round(loss, 4) for name, loss in losses.items()}
    return Tuned(quantize(assemble(seeing, reading), representative), kept, rounded)


def _loss(reading: Any, views: Views, part: Part, places: Any) -> float:
    """Return the mean negative log-likelihood of whole, unchanged pictures."""
    scores: list[Floats] = []
    for first in range(0, len(places), 64):
        features = views.features[0, places[first : first + 64]].astype(np.float32)
        scores.append(np.asarray(reading(features, training=False)["scores"], dtype=np.float64))
    chances = probabilities(np.concatenate(scores), 1.0)
    return float(-np.mean(np.log(chances[np.arange(len(places)), part.truth[places]] + 1e-12)))
