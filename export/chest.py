"""The shipped chest model, end to end: cross-validation, controls, the model of one fold, and its report."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.decode import decode_file
from edge.preprocess import INPUT_SIDE, PREPROCESS_VERSION
from export import evaluate as ev
from export.baseline import linear_scores, shape_only_inputs
from export.dataset import CLASSES, Pixels, Sample, load_lungs, load_pixels, patients, read_dataset, require_classes, targets
from export.metrics import auc, confusion, macro_recall
from export.model import Finished, finish, float_logits, int8_logits, training_set
from export.splits import Split, patient_folds, require_patients
from export.train import Recipe, train

FOLDS = 5
SPLIT_SEED = 7
DEVELOPMENT_FOLD = 0
"""The only fold whose test patients were looked at while the network and its recipe were being chosen."""
TRAINED_ON = ("darkcovid", "ieee8023")
PRETRAINED_ON = "kermany"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Chest:
    """shipped: the model of the last fold. report: see `docs/reference/network.md`, which is written from it."""

    shipped: Finished
    report: dict[str, Any]


@dataclass(frozen=True)
class _Pooled:
    """Unseen predictions of every sample by the model of its fold. All of length n; logits (n, classes)."""

    logits: ev.Floats
    black: ev.Floats
    linear: ev.Floats
    fold: npt.NDArray[np.int64]
    temperature: ev.Floats
    threshold: ev.Floats


def make_chest(data: Path, recipe: Recipe, *, seed: int, say: Say, folds: int = FOLDS) -> Chest:
    """Train and measure.

    Args:
        data: folder with the data sets of TRAINED_ON and PRETRAINED_ON.
        recipe: of every model. All but the one that must not know the other sources start from one network that has learned normal
            and pneumonia from PRETRAINED_ON.
        seed: of every model; fold number is added.
        say: receives progress lines.
        folds: of the cross-validation; the model of the last one is shipped.
    """
    began = time.monotonic()
    samples = [sample for name in TRAINED_ON for sample in read_dataset(data, name)]
    require_classes(samples, CLASSES)
    require_patients(samples, folds)
    pixels = load_pixels(samples)
    splits = patient_folds(samples, folds=folds, seed=SPLIT_SEED)
    say(f"{len(samples)} pictures of {len(set(patients(samples)))} patients")
    children = read_dataset(data, PRETRAINED_ON)
    child_pixels = load_pixels(children)
    child_split = patient_folds(children, folds=FOLDS, seed=SPLIT_SEED)[0]
    start = _pretrain(child_pixels, children, child_split, replace(recipe, seed=seed))
    say(f"pretrained, {time.monotonic() - began:.0f} s")
    models: list[Finished] = []
    for fold, split in enumerate(splits):
        models.append(finish(pixels, samples, split, replace(recipe, seed=seed + fold), start))
        say(f"fold {fold} trained, {time.monotonic() - began:.0f} s")
    pooled = _pool(pixels, samples, splits, models)
    report = {
        "classes": list(CLASSES),
        "preprocessing": PREPROCESS_VERSION,
        "preprocessing_side": INPUT_SIDE,
        "data": _counts([*samples, *children]),
        "recipe": asdict(recipe),
        "seed": seed,
        "cross_validation": _cross_validation(pooled, samples),
        "shipped": _shipped(models[-1], splits, pixels, samples),
        "controls": _controls(pooled, pixels, samples),
        "leave_source_out": _leave_source_out(
            pixels, samples, child_pixels, children, splits[-1], replace(recipe, seed=seed + folds)
        ),
        PRETRAINED_ON: _children(models[-1], child_pixels[child_split.test], [children[i] for i in child_split.test]),
    }
    report["seconds"] = round(time.monotonic() - began)
    return Chest(models[-1], report)


def _pretrain(pixels: Pixels, children: list[Sample], split: Split, recipe: Recipe) -> Any:
    data = training_set(pixels, children, np.concatenate([split.train, split.validation]), classes=2)
    return train(data, recipe, (recipe.pretrain,))


def _pool(pixels: Pixels, samples: list[Sample], splits: list[Split], models: list[Finished]) -> _Pooled:
    n, truth = len(samples), targets(samples)
    pooled = _Pooled(
        logits=np.zeros((n, len(CLASSES))),
        black=np.zeros((n, len(CLASSES))),
        linear=np.zeros((n, len(CLASSES))),
        fold=np.zeros(n, np.int64),
        temperature=np.zeros(n),
        threshold=np.zeros(n),
    )
    for fold, (split, model) in enumerate(zip(splits, models, strict=True)):
        test, rest = split.test, np.concatenate([split.train, split.validation])
        pooled.logits[test] = int8_logits(model.graph, pixels[test])
        pooled.black[test] = int8_logits(model.graph, ev.black_centre(pixels[test]))
        pooled.linear[test] = linear_scores(pixels[rest], truth[rest], pixels[test])
        pooled.fold[test], pooled.temperature[test], pooled.threshold[test] = fold, model.temperature, model.threshold
    return pooled


def _cross_validation(pooled: _Pooled, samples: list[Sample]) -> dict[str, Any]:
    """The three classes of darkcovid, and covid against pneumonia where both come from the same kind of source."""
    truth, people = targets(samples), patients(samples)
    dark = np.array([sample.dataset == "darkcovid" for sample in samples])
    same = np.array([sample.source == "ieee8023" for sample in samples])
    pair = (ev.COVID, ev.PNEUMONIA)
    part = (pooled.logits[dark], truth[dark], people[dark])
    later = pooled.fold[dark] != DEVELOPMENT_FOLD
    return {
        "folds": ev.fold_rows(pooled.logits[dark], pooled.linear[dark], truth[dark], pooled.fold[dark]),
        "darkcovid": ev.three_classes(*part),
        "darkcovid_without_development_fold": ev.three_classes(*(values[later] for values in part)),
        "darkcovid_linear": ev.three_classes(pooled.linear[dark], *part[1:]),
        "darkcovid_gain_over_linear": ev.accuracy_difference(part[0], pooled.linear[dark], *part[1:]),
        "darkcovid_gain_over_linear_without_development_fold": ev.accuracy_difference(
            part[0][later], pooled.linear[dark][later], *(values[later] for values in part[1:])
        ),
        "darkcovid_abstention": ev.abstention(*part, pooled.temperature[dark], pooled.threshold[dark]),
        "ieee8023_covid19_against_pneumonia": ev.two_classes(pooled.logits[same], truth[same], people[same], *pair),
        "ieee8023_linear": ev.two_classes(pooled.linear[same], truth[same], people[same], *pair),
    }


def _shipped(model: Finished, splits: list[Split], pixels: Pixels, samples: list[Sample]) -> dict[str, Any]:
    test = splits[-1].test
    chosen = [samples[i] for i in test]
    logits, truth = int8_logits(model.graph, pixels[test]), targets(chosen)
    ones = np.ones(len(chosen))
    return {
        "fold": len(splits) - 1,
        "parameters": int(model.network.count_params()),
        "bytes": len(model.graph),
        "sparsity_of_1x1_convolutions": round(model.sparsity, 4),
        "temperature": model.temperature,
        "threshold": model.threshold,
        "test": ev.three_classes(logits, truth, patients(chosen)),
        "abstention": ev.abstention(logits, truth, patients(chosen), ones * model.temperature, ones * model.threshold),
        "float_against_int8": ev.agreement(float_logits(model.network, pixels[test]), logits),
    }


def _controls(pooled: _Pooled, pixels: Pixels, samples: list[Sample]) -> dict[str, Any]:
    """What a model must not be able to do."""
    truth, people = targets(samples), patients(samples)
    dark = np.array([sample.dataset == "darkcovid" for sample in samples])
    same = np.array([sample.source == "ieee8023" for sample in samples])
    pair = (ev.COVID, ev.PNEUMONIA)
    shapes = [decode_file(sample.file).image.size[::-1] for sample in samples]
    flat = shape_only_inputs([(height, width) for height, width in shapes])
    guess = linear_scores(flat[pooled.fold != 0], truth[pooled.fold != 0], flat[pooled.fold == 0]).argmax(axis=1)
    table = confusion(truth[pooled.fold == 0], np.asarray(guess, dtype=np.int64), len(CLASSES))
    unsquare = np.array([abs(np.log(height / width)) for height, width in shapes])
    return {
        "shape_only_macro_recall": round(macro_recall(table), 4),
        "shape_only_chance": round(1 / len(CLASSES), 4),
        "file_shape_covid19_auc_in_darkcovid": round(auc(truth[dark] == ev.COVID, unsquare[dark]), 4),
        "black_centre_darkcovid": ev.three_classes(pooled.black[dark], truth[dark], people[dark]),
        "black_centre_ieee8023": ev.two_classes(pooled.black[same], truth[same], people[same], *pair),
    }


def _leave_source_out(
    pixels: Pixels, samples: list[Sample], child_pixels: Pixels, children: list[Sample], split: Split, recipe: Recipe
) -> dict[str, Any]:
    """A model of darkcovid alone, from random weights, on sources that it has never seen.

    It trains twice as long as the others, because it starts from nothing.
    """
    dark = np.array([sample.dataset == "darkcovid" for sample in samples])
    alone = Split(split.train[dark[split.train]], split.validation[dark[split.validation]], split.test)
    longer = tuple(replace(phase, epochs=2 * phase.epochs) for phase in recipe.phases)
    model = finish(pixels, samples, alone, replace(recipe, phases=longer))
    known = {samples[i].patient for i in (*alone.train, *alone.validation)}
    unseen = np.array([i for i, sample in enumerate(samples) if not dark[i] and sample.patient not in known])
    chosen = [samples[i] for i in unseen]
    logits, small = int8_logits(model.graph, pixels[unseen]), int8_logits(model.graph, child_pixels)
    return {
        "trained_on": ["darkcovid"],
        "ieee8023": ev.three_classes(logits, targets(chosen), patients(chosen)),
        "ieee8023_covid19_against_pneumonia": ev.two_classes(logits, targets(chosen), patients(chosen), ev.COVID, ev.PNEUMONIA),
        "kermany_pneumonia_against_normal": ev.two_classes(small, targets(children), patients(children), ev.PNEUMONIA, ev.NORMAL),
        "kermany_called_covid19_share": _called_covid(small),
    }


def _children(model: Finished, pixels: Pixels, samples: list[Sample]) -> dict[str, Any]:
    """Children whom the shipped model has not seen, of the hospital of its pretraining; also with their lungs blacked out."""
    truth, people = targets(samples), patients(samples)
    logits = int8_logits(model.graph, pixels)
    masked = np.array([i for i, sample in enumerate(samples) if sample.lung_mask is not None])
    lungs = load_lungs([samples[i] for i in masked])
    black = int8_logits(model.graph, np.where(lungs, np.uint8(0), pixels[masked]))
    return {
        "pneumonia_against_normal": ev.two_classes(logits, truth, people, ev.PNEUMONIA, ev.NORMAL),
        "called_covid19_share": _called_covid(logits),
        "with_masks": ev.two_classes(logits[masked], truth[masked], people[masked], ev.PNEUMONIA, ev.NORMAL),
        "with_masks_lungs_black": ev.two_classes(black, truth[masked], people[masked], ev.PNEUMONIA, ev.NORMAL),
    }


def _called_covid(logits: ev.Floats) -> float:
    return round(float((logits.argmax(axis=1) == ev.COVID).mean()), 4)


def _counts(samples: list[Sample]) -> dict[str, Any]:
    counts: dict[str, Any] = {}
    for sample in samples:
        row = counts.setdefault(sample.dataset, dict.fromkeys(CLASSES, 0))
        row[sample.label] += 1
    for name, row in counts.items():
        row["patients"] = len({sample.patient for sample in samples if sample.dataset == name})
    return counts
