"""All pictures that the shipped model learns from or is measured on, and what its eyes see of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from edge.pixels.preprocess import INPUT_SIDE
from export.compress.equalizing import equalized
from export.compress.folding import folded
from export.compress.rounding import rounded
from export.dataset import CLASSES, Pixels, Sample, load_lungs, load_pixels, read_dataset, require_classes, some_of_each
from export.legacy_keras import keras
from export.networks.ours import GATHERED, eyes
from export.splits import Split, deal, patient_folds, require_patients
from export.train import Recipe
from export.views import Int8Eyes, Views, make_views

TRAINED_ON = ("darkcovid", "ieee8023")
OTHER = "other"
"""Label of pictures of other diseases: they are not covid19, and which of the other classes they are is left open."""
LUNGS_OF = "kermany"
"""Children: their masks teach what lungs look like; their labels are not used."""

HANDS = 5
"""Parts of the patients that are left out of the training in turn, to see what it says of patients that it does not know."""

SPLIT_SEED = 7
"""Of the folds, the same for every model."""

_LUNG_PICTURES = 900
_REPRESENTATIVE = 100


@dataclass(frozen=True)
class Material:
    """samples: those that are split, CLASSES and OTHER. pixels: of them. lungs: where known, else False, likewise. splits: of them.

    views, allowed, masked, source: of the samples and, after them, of the children with masks; see `export.train.Lesson`.
    hand: shape (n,), of the samples; all pictures of a patient in one. views_without: takes the name of a source to views like the
    others, in which no picture wears a border of that source.
    children: those that teach nothing; child_pixels: of them. representative: pictures on which the int8 ranges of the eyes are
    measured: children, who are in no test part.
    """

    samples: list[Sample]
    pixels: Pixels
    lungs: npt.NDArray[np.bool_]
    splits: list[Split]
    eyes: Any
    views: Views
    allowed: npt.NDArray[np.float32]
    masked: npt.NDArray[np.bool_]
    source: npt.NDArray[np.int64]
    hand: npt.NDArray[np.int64]
    views_without: Callable[[str], Views]
    children: list[Sample]
    child_pixels: Pixels
    representative: Pixels


def read_material(
    data: Path, folds: int, weights: Path | None, recipe: Recipe, seed: int, split_seed: int = SPLIT_SEED
) -> Material:
    """Read everything.

    Args:
        data: folder of the data sets.
        folds: of the samples, by patient.
        weights: of the eyes; None for random ones.
        recipe: says how many views, and how strongly they are changed.
        seed: of the views.
        split_seed: of the folds.

    Raises:
        DataError: if data sets are missing or unreadable, or a class has too few patients.
        WeightsError: if the weights are not of the eyes.
    """
    labelled = [sample for name in TRAINED_ON for sample in read_dataset(data, name)]
    require_classes(labelled, CLASSES)
    require_patients(labelled, folds)
    others = [sample for name in TRAINED_ON for sample in read_dataset(data, name, (OTHER,))]
    samples = [*labelled, *others]
    splits = _with_others(patient_folds(labelled, folds=folds, seed=split_seed), labelled, others)
    children = read_dataset(data, LUNGS_OF)
    teaching = teaching_children(children, seed)
    taught = {child.patient for child in teaching}
    children = [child for child in children if child.patient not in taught]
    pixels, lungs, taught_pixels = load_pixels(samples), _lungs(samples), load_pixels(teaching)
    fold = np.zeros(len(samples), dtype=np.int64)
    for number, split in enumerate(splits):
        fold[split.test] = number
    representative = taught_pixels[:_REPRESENTATIVE]
    measured = representative[..., np.newaxis]
    if weights is None:
        keras.utils.set_random_seed(seed)
    seeing = rounded(equalized(folded(eyes(INPUT_SIDE, weights)), measured, free=GATHERED), measured)
    every = [*samples, *teaching]
    hand = deal(samples, HANDS, seed)
    # What is left out must not leave a border behind, neither a fold nor a source.
    group = np.concatenate([fold, np.full(len(teaching), folds)])
    look, shown = Int8Eyes(seeing, representative), np.concatenate([pixels, taught_pixels])
    shapes = np.stack([thorax(picture) for picture in (*lungs, *_lungs(teaching))])

    def views_within(groups: npt.NDArray[np.int64]) -> Views:
        return make_views(look, shown, shapes, groups, recipe.strength, count=recipe.views, seed=seed)

    def views_without(name: str) -> Views:
        return views_within(2 * group + np.array([sample.source == name for sample in every]))

    return Material(
        samples=samples,
        pixels=pixels,
        lungs=lungs,
        splits=splits,
        eyes=seeing,
        views=views_within(group),
        allowed=_allowed(samples, len(teaching)),
        masked=np.array([sample.lung_mask is not None for sample in every]),
        source=np.unique([sample.source for sample in every], return_inverse=True)[1],
        hand=hand,
        views_without=views_without,
        children=children,
        child_pixels=load_pixels(children),
        representative=representative,
    )


def teaching_children(children: Sequence[Sample], seed: int) -> list[Sample]:
    """Return those whose masks are learned from: at most half, so that there are some left that nothing was learned from."""
    return some_of_each([child for child in children if child.lung_mask], min(_LUNG_PICTURES, len(children) // 2), seed)


def _with_others(splits: list[Split], labelled: Sequence[Sample], others: Sequence[Sample]) -> list[Split]:
    """Return the splits with the others, whose indexes follow; one of a patient who has labelled pictures goes where those are."""
    home = {labelled[int(i)].patient: fold for fold, split in enumerate(splits) for i in split.test}
    strangers = sorted({sample.patient for sample in others} - set(home))
    home |= {patient: number % len(splits) for number, patient in enumerate(strangers)}
    fold = np.array([home[sample.patient] for sample in others], dtype=np.int64)
    result = []
    for number, split in enumerate(splits):
        validated = {labelled[int(i)].patient for i in split.validation}
        index = len(labelled) + np.arange(len(others))
        tested = fold == number
        aside = np.array([sample.patient in validated for sample in others], dtype=np.bool_)
        result.append(
            Split(
                train=np.concatenate([split.train, index[~tested & ~aside]]),
                validation=np.concatenate([split.validation, index[~tested & aside]]),
                test=np.concatenate([split.test, index[tested]]),
            )
        )
    return result


def _lungs(samples: Sequence[Sample]) -> npt.NDArray[np.bool_]:
    lungs = np.zeros((len(samples), INPUT_SIDE, INPUT_SIDE), dtype=np.bool_)
    known = [index for index, sample in enumerate(samples) if sample.lung_mask is not None]
    if known:
        lungs[known] = load_lungs([samples[index] for index in known])
    return lungs


def thorax(lungs: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Return how much each pixel may say: 1 in the lungs, 0.5 between them and close around, 0 elsewhere.

    The mask of the lungs leaves out the heart and the mediastinum, and what is hidden there has its signs too.

    Args:
        lungs: shape (side, side); without any, the result is 0 throughout.
    """
    from scipy.spatial import ConvexHull, QhullError

    hull = Image.new("1", lungs.shape[::-1])
    places = np.argwhere(lungs)
    if len(places) > 2:
        with contextlib.suppress(QhullError):  # lungs of a single line have no hull
            corners = places[ConvexHull(places).vertices]
            ImageDraw.Draw(hull).polygon([(int(column), int(row)) for row, column in corners], fill=1)
    return np.asarray((lungs.astype(np.float32) + np.asarray(hull, np.float32)) / 2, np.float32)


def _allowed(samples: Sequence[Sample], teaching: int) -> npt.NDArray[np.float32]:
    rows = [
        [1.0 if sample.label == name or (sample.label == OTHER and name != "covid19") else 0.0 for name in CLASSES]
        for sample in samples
    ]
    return np.array(rows + [[1.0] * len(CLASSES)] * teaching, dtype=np.float32)
