"""A linear model on 64x64 pixels: what any network must beat, and cheap enough to show what a split by picture does to a number."""

from __future__ import annotations

import numpy as np

from export.baseline import linear_scores
from export.calibrate import fit_temperature, fit_threshold
from export.dataset import targets
from export.report.bench import HELD_OUT, Bench, Gathered, predictions_of
from export.splits import Indexes

LINEAR = "linear model, 64x64"
_SEED = 7


def linear_model(bench: Bench, gathered: Gathered) -> None:
    """Fit it on the bundle's training part, then once more on a split of pictures that parts patients."""
    split = bench.split
    _fit(bench, gathered, split.train, split.validation, split.test, grouped=True)
    order = np.random.default_rng(_SEED).permutation(len(bench.samples))
    first, second = len(split.test), len(split.test) + len(split.validation)
    _fit(bench, gathered, order[second:], order[first:second], order[:first], grouped=False)


def _fit(bench: Bench, gathered: Gathered, train: Indexes, validation: Indexes, test: Indexes, *, grouped: bool) -> None:
    asked = np.concatenate([validation, test])
    scores = linear_scores(bench.pixels[train], targets(bench.chosen(train)), bench.pixels[asked])
    held, found = scores[: len(validation)], scores[len(validation) :]
    temperature = fit_temperature(held, targets(bench.chosen(validation)))
    gathered.predictions.append(
        predictions_of(
            LINEAR,
            bench.chosen(test),
            found,
            precision="float32",
            temperature=temperature,
            threshold=fit_threshold(held, temperature),
            protocol=HELD_OUT if grouped else "pictures drawn without regard to patients",
            grouped=grouped,
        )
    )
