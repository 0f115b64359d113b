"""The reader of a bundle's network trained further on a hospital's pictures, and held back by the weights that it had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from export.adapt_data import Part
from export.calibrate import Floats, probabilities
from export.compress.representative import REPRESENTATIVE, representative_by_patient
from export.networks.ours import assemble, reader
from export.quantize import quantize
from export.reopen import reopened
from export.splits import deal
from export.train import Lesson, Recipe, Start, as_reader, find_signs, left_out, look, lungs_of, signs_of
from export.views import Int8Eyes, make_views

RECIPE = Recipe()
PULLS = (1.0, 10.0, 100.0, 1000.0)
"""Tried for `Start.pull`: what the old weights weigh against the loss of all pictures together.

A pull that does not fall with the number of pictures is what a Gaussian prior around the old weights amounts to: the fewer
pictures, the less they move (Li, Grandvalet and Davoine 2018, "Explicit inductive bias for transfer learning").
"""
_FOLDS = 3


@dataclass(frozen=True)
class Tuned:
    """graph: the int8 file. pull: the chosen one of PULLS, None if the old weights stay. losses: of each, held-out.

    The losses are mean negative log-likelihoods of training patients that were left out in turn; "as it was" is without training.
    """

    graph: bytes
    pull: float | None
    losses: dict[str, float]


def fine_tune(
    graph: bytes,
    classes: Sequence[str],
    part: Part,
    *,
    keep: Sequence[str],
    seed: int,
    recipe: Recipe = RECIPE,
    pulls: Sequence[float] = PULLS,
) -> Tuned:
    """Train the reader of a bundle further; its eyes stay as they are.

    How strongly the old weights hold it back is chosen on training patients left out in turn: as strongly as does no worse than the
    best by more than chance (one standard error, Breiman et al. 1984, "Classification and regression trees"). No training at all is
    the strongest.

    Args:
        graph: of the bundle.
        classes: of the bundle, in the order of its outputs.
        part: the training part.
        keep: classes that the new network has, in this order; every one has pictures, since one without would be unlearned.
        seed: of everything.
        recipe: of the training.
        pulls: see PULLS.

    Raises:
        WeightsError: if the network is not ours.
    """
    seeing, whole = reopened(graph, len(classes), part.pixels.shape[1])
    reading = with_classes(whole, [list(classes).index(name) for name in keep])
    truth = np.array([list(keep).index(label) for label in part.labels], dtype=np.int64)
    representative = part.pixels[representative_by_patient(part.samples, REPRESENTATIVE, seed)]
    fold = deal(part.samples, _FOLDS, seed)
    unknown = np.zeros(part.pixels.shape, dtype=np.float32)  # what lungs look like is known from the start
    views = make_views(Int8Eyes(seeing, representative), part.pixels, unknown, fold, recipe.strength, count=recipe.views, seed=seed)
    everyone = np.arange(len(truth))
    source = np.unique([sample.source for sample in part.samples], return_inverse=True)[1]
    lesson = Lesson(views, np.eye(len(keep), dtype=np.float32)[truth], np.zeros(len(truth), np.bool_), source, everyone)
    seeded = replace(recipe, seed=seed)
    lungs, signs = lungs_of(reading), signs_of(reading)
    seen = look(lesson, lungs)
    losses = {pull: _losses(left_out(seen, fold, seeded, signs, Start(reading, pull)), truth) for pull in pulls}
    losses[np.inf] = _losses(seen.plain @ signs, truth)
    kept = strongest(losses)
    if np.isfinite(kept):
        reading = as_reader(lungs, find_signs(seen, seeded, Start(reading, kept)), reading.input_shape[1])
    return Tuned(
        quantize(assemble(seeing, reading), representative),
        kept if np.isfinite(kept) else None,
        {f"{pull:g}" if np.isfinite(pull) else "as it was": round(float(values.mean()), 4) for pull, values in losses.items()},
    )


def with_classes(reading: Any, keep: Sequence[int]) -> Any:
    """Return a reader of some of the classes of another, by their places."""
    made = reader(len(keep), reading.input_shape[1])
    made.get_layer("lungs").set_weights(reading.get_layer("lungs").get_weights())
    kept = [values[..., list(keep)] for values in reading.get_layer("signs").get_weights()]
    made.get_layer("signs").set_weights([values - values.mean(axis=-1, keepdims=True) for values in kept])
    return made


def strongest(losses: Mapping[float, Floats]) -> float:
    """Return the largest key whose losses, one a picture, are no worse than the least by more than one standard error."""
    best = min(losses, key=lambda pull: float(losses[pull].mean()))
    fair = [best]
    for pull, values in losses.items():
        worse = values - losses[best]
        if worse.mean() <= worse.std() / len(worse) ** 0.5:
            fair.append(pull)
    return max(fair)


def _losses(logits: Floats, truth: npt.NDArray[np.int64]) -> Floats:
    """Return the negative log-likelihood of each picture, shape (n,)."""
    return np.asarray(-np.log(probabilities(logits, 1.0)[np.arange(len(truth)), truth] + 1e-12))
