"""The shipped chest model, end to end: cross-validation, controls, other sources, the model of one fold, and its report."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge.pixels.preprocess import INPUT_SIDE, PREPROCESS_VERSION
from export import evaluate as ev
from export import unseen
from export.baseline import linear_scores
from export.calibrate import MISCOVERAGE
from export.compress.representative import representative_by_patient
from export.dataset import CLASSES, Sample, patients
from export.material import Material, read_material
from export.metrics import auc, confusion, macro_recall
from export.model import UNFAMILIAR, Finished, finish
from export.predictions import Predictions
from export.protocols import NamedSplit, Plan, RecordedPlan, record_plan
from export.second_runtime import in_other_runtime
from export.splits import Split
from export.train import Lesson, Recipe

FOLDS = 5
DEVELOPMENT_FOLDS = (0, 1)
"""The folds whose test patients were looked at while the network and its recipe were being chosen."""
SHIPPED_FOLD = -1
_ADULTS = 100
"""Of the training part, on which the ranges of int8 are measured together with the children of `Material.representative`."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Chest:
    """shipped: the model of the last fold. report: see `docs/reference/network.md`. predictions: of all folds, with controls.

    plan: the folds of darkcovid, so that other networks can be put to the same test.
    """

    shipped: Finished
    report: dict[str, Any]
    predictions: list[Predictions]
    plan: RecordedPlan


def make_chest(data: Path, recipe: Recipe, *, weights: Path | None, seed: int, say: Say, folds: int = FOLDS) -> Chest:
    """Train and measure.

    Args:
        data: folder with the data sets of `export.material`.
        recipe: of every model.
        weights: of the eyes, see `export.networks.ours.build`; None for random ones.
        seed: of every model; fold number is added.
        say: receives progress lines.
        folds: of the cross-validation; the model of the last one is shipped.

    Raises:
        DataError: if there are too few pictures or patients.
        WeightsError: if the weights are not of the eyes.
    """
    began = time.monotonic()

    def tell(text: str) -> None:
        say(f"{text}, {time.monotonic() - began:.0f} s")

    material = read_material(data, folds, weights, recipe, seed)
    samples = material.samples
    splits = material.splits
    tell(f"{len(samples)} pictures of {len(set(patients(samples)))} patients seen")
    models = []
    for fold, split in enumerate(splits):
        models.append(make_model(material, split, replace(recipe, seed=seed + fold)))
        tell(f"fold {fold} trained")
    found = unseen.of_folds(material, splits, models)
    left = unseen.of_left_out(material, replace(recipe, seed=seed + folds), make_model, tell)
    shipped = models[SHIPPED_FOLD]
    report = {
        "classes": list(CLASSES),
        "preprocessing": PREPROCESS_VERSION,
        "preprocessing_side": INPUT_SIDE,
        "data": _counts([*samples, *material.children]),
        "recipe": asdict(recipe),
        "seed": seed,
        "miscoverage": MISCOVERAGE,
        "unfamiliar_below": UNFAMILIAR,
        "cross_validation": _cross_validation(found, material),
        "controls": _controls(found, material),
        "shipped": _shipped(shipped, splits, found, material),
        "left_out": left | {"kermany": unseen.of_children(material, models, found)},
    }
    return Chest(shipped, report, unseen.as_predictions(found, material), _plan(material))


def _plan(material: Material) -> RecordedPlan:
    chosen = np.array([sample.dataset == "darkcovid" and sample.label in CLASSES for sample in material.samples])
    named = [
        NamedSplit(f"fold-{number}", Split(*(part[chosen[part]] for part in (split.train, split.validation, split.test))))
        for number, split in enumerate(material.splits)
    ]
    return record_plan(Plan("fivefold", True, named, []), material.samples, CLASSES)


def make_model(material: Material, split: Split, recipe: Recipe, without: str | None = None) -> Finished:
    """Train on the training part of a split, and on pictures that have masks and no classes; without a source, if one is named."""
    kept = np.array([without is None or sample.source != without for sample in material.samples])
    part = Split(*(indexes[kept[indexes]] for indexes in (split.train, split.validation, split.test)))
    chosen = np.concatenate([part.train, np.arange(len(material.samples), len(material.allowed))])
    lesson = Lesson(material.views, material.allowed, material.masked, material.source, chosen)
    # Children alone would leave the scores of adults beyond the ends of the range.
    adults = part.train[representative_by_patient([material.samples[i] for i in part.train], _ADULTS, recipe.seed)]
    representative = np.concatenate([material.representative, material.pixels[adults]])
    return finish(material.eyes, material.pixels, material.samples, lesson, part, material.hand, recipe, representative)


def _cross_validation(found: unseen.Found, material: Material) -> dict[str, Any]:
    """The three classes of darkcovid, and covid19 against all else where both come from the same kind of source."""
    samples = material.samples
    truth, people = unseen.truth_of(samples), patients(samples)
    dark = np.array([sample.dataset == "darkcovid" for sample in samples])
    same = np.array([sample.source == "ieee8023" for sample in samples])
    later = dark & ~np.isin(found.fold, DEVELOPMENT_FOLDS)
    same_later = same & ~np.isin(found.fold, DEVELOPMENT_FOLDS)
    known = truth >= 0
    return {
        "folds": ev.fold_rows(found.logits[dark], found.linear[dark], truth[dark], found.fold[dark]),
        "darkcovid": ev.three_classes(found.logits[dark], truth[dark], people[dark]),
        "darkcovid_without_development_folds": ev.three_classes(found.logits[later], truth[later], people[later])["accuracy"]
        if later.any()
        else None,
        "darkcovid_linear": ev.three_classes(found.linear[dark], truth[dark], people[dark]),
        "darkcovid_gain_over_linear": ev.accuracy_difference(found.logits[dark], found.linear[dark], truth[dark], people[dark]),
        "darkcovid_abstention": ev.abstention(found.chances[dark], truth[dark], people[dark], found.answered[dark]),
        "familiar": ev.confident(found.distance <= 1, people),
        "all_abstention": ev.abstention(found.chances[known], truth[known], people[known], found.answered[known]),
        "conformal_coverage": ev.coverage(found.chances[known], truth[known], people[known], found.candidate[known]),
        "ieee8023_covid19_against_rest": ev.covid_against_rest(found.logits[same], truth[same], people[same]),
        "ieee8023_covid19_against_rest_without_development_folds": ev.covid_against_rest(
            found.logits[same_later], truth[same_later], people[same_later]
        )["auc"]
        if same_later.any()
        else None,
        "ieee8023_linear": ev.covid_against_rest(found.linear[same], truth[same], people[same]),
        "float_against_int8": ev.agreement(found.floats, found.logits),
        "float_darkcovid": ev.three_classes(found.floats[dark], truth[dark], people[dark])["accuracy"],
    }


def _shipped(model: Finished, splits: list[Split], found: unseen.Found, material: Material) -> dict[str, Any]:
    test = splits[SHIPPED_FOLD].test
    samples = [material.samples[i] for i in test]
    truth, people = unseen.truth_of(samples), patients(samples)
    known = truth >= 0
    return {
        "fold": len(splits) - 1,
        "parameters": int(model.network.count_params()),
        "bytes": len(model.graph),
        "temperature": model.temperature,
        "candidate": model.candidate,
        "test": ev.three_classes(found.logits[test][known], truth[known], people[known]),
        "abstention": ev.abstention(found.chances[test][known], truth[known], people[known], found.answered[test][known]),
        "float_against_int8": ev.agreement(found.floats[test], found.logits[test]),
        "other_runtime": in_other_runtime(
            model.graph, model, material.pixels[test][known], [sample for sample in samples if sample.label in CLASSES]
        ),
    }


def _controls(found: unseen.Found, material: Material) -> dict[str, Any]:
    """What a model must not be able to do, and where its heat lies."""
    samples = material.samples
    truth, people = unseen.truth_of(samples), patients(samples)
    dark = np.array([sample.dataset == "darkcovid" for sample in samples])
    same = np.array([sample.source == "ieee8023" for sample in samples])
    masked = np.array([sample.lung_mask is not None for sample in samples])
    both = same & masked
    shapes, flat = unseen.shapes_of(samples)
    known, first = truth >= 0, found.fold == 0
    guess = linear_scores(flat[known & ~first], truth[known & ~first], flat[known & first]).argmax(axis=1)
    table = confusion(truth[known & first], np.asarray(guess, dtype=np.int64), len(CLASSES))
    return {
        "shape_only_macro_recall": round(macro_recall(table), 4),
        "shape_only_chance": round(1 / len(CLASSES), 4),
        "file_shape_covid19_auc_in_darkcovid": round(auc(truth[dark] == ev.COVID, shapes[dark]), 4),
        "black_centre_darkcovid": ev.three_classes(found.black[dark], truth[dark], people[dark]),
        "black_centre_ieee8023": ev.covid_against_rest(found.black[same], truth[same], people[same]),
        "gray_centre_darkcovid": ev.three_classes(found.gray[dark], truth[dark], people[dark]),
        "lungs_black_ieee8023": ev.covid_against_rest(found.lungless[both], truth[both], people[both]),
        "lungs_there_ieee8023": ev.covid_against_rest(found.logits[both], truth[both], people[both]),
        "heat_in_lungs": ev.mean_of(found.heat_in_lungs[masked & known], people[masked & known]),
        "lungs_share_of_picture": round(float(material.lungs[masked].mean()), 4),
    }


def _counts(samples: list[Sample]) -> dict[str, Any]:
    counts: dict[str, Any] = {}
    labels = list(dict.fromkeys([*CLASSES, *(sample.label for sample in samples)]))
    for sample in samples:
        row = counts.setdefault(sample.dataset, dict.fromkeys(labels, 0))
        row[sample.label] += 1
    for name, row in counts.items():
        row["patients"] = len({sample.patient for sample in samples if sample.dataset == name})
    return counts
