"""What the models of a cross-validation say of pictures of patients from whom they have not learned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edge.network.typicality import Typicality
from edge.pixels.decode import decode_file
from export.baseline import linear_scores, shape_only_inputs
from export.calibrate import probabilities
from export.controls import lungs_out
from export.dataset import CLASSES, Pixels, Sample, patients
from export.evaluate import COVID, Figure, confident, mean_of, patched
from export.material import Material
from export.model import Finished, Seen, float_logits, run
from export.predictions import Predictions, as_picture
from export.splits import Split
from export.train import Recipe

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Make = Callable[[Material, Split, Recipe, str | None], Finished]

GRAY = 128


class Judge(Protocol):
    """What turns scores into answers, see `export.model.Finished`."""

    @property
    def temperature(self) -> float: ...
    @property
    def candidate(self) -> float: ...
    @property
    def typicality(self) -> Typicality: ...


@dataclass(frozen=True)
class Found:
    """Of all n samples, each by the model of its fold.

    logits, floats, black, gray, lungless, linear: shape (n, classes); of the int8 graph, of the float network, with the middle
    black, with the middle gray, with the lungs black (where known), of the linear model. chances: probabilities of the logits.
    answered: whether the device would answer. distance: from what the model has learned, as a share of its limit. temperature,
    candidate: of the model. heat_in_lungs: share of the heat for the answer that lies in the lungs; 0 where unknown.
    """

    fold: npt.NDArray[np.int64]
    logits: Floats
    floats: Floats
    black: Floats
    gray: Floats
    lungless: Floats
    linear: Floats
    chances: Floats
    answered: Bools
    distance: Floats
    temperature: Floats
    candidate: Floats
    heat_in_lungs: Floats


def of_folds(material: Material, splits: list[Split], models: list[Finished]) -> Found:
    """Return what each model says of the test part of its fold."""
    n = len(material.samples)
    found = _empty(n, len(CLASSES))
    truth = truth_of(material.samples)
    for fold, (split, model) in enumerate(zip(splits, models, strict=True)):
        test, pixels = split.test, material.pixels[split.test]
        seen = run(model.graph, pixels)
        found.fold[test] = fold
        found.logits[test] = seen.logits
        found.floats[test] = float_logits(model.network, pixels)
        found.black[test] = run(model.graph, patched(pixels, 0)).logits
        found.gray[test] = run(model.graph, patched(pixels, GRAY)).logits
        found.lungless[test] = run(model.graph, lungs_out(pixels, material.lungs[test])).logits
        found.chances[test], found.answered[test], _, found.distance[test] = answers(seen, model)
        found.temperature[test], found.candidate[test] = model.temperature, model.candidate
        found.heat_in_lungs[test] = heat_in_lungs(seen, material.lungs[test])
        rest = np.concatenate([split.train, split.validation])
        rest = rest[truth[rest] >= 0]
        found.linear[test] = linear_scores(material.pixels[rest], truth[rest], pixels)
    return found


def _empty(n: int, classes: int) -> Found:
    return Found(
        fold=np.zeros(n, np.int64),
        logits=np.zeros((n, classes)),
        floats=np.zeros((n, classes)),
        black=np.zeros((n, classes)),
        gray=np.zeros((n, classes)),
        lungless=np.zeros((n, classes)),
        linear=np.zeros((n, classes)),
        chances=np.zeros((n, classes)),
        answered=np.zeros(n, np.bool_),
        distance=np.zeros(n),
        temperature=np.zeros(n),
        candidate=np.zeros(n),
        heat_in_lungs=np.zeros(n),
    )


def truth_of(samples: list[Sample]) -> npt.NDArray[np.int64]:
    """Return class indexes; -1 for a label that is none of CLASSES."""
    return np.array([CLASSES.index(s.label) if s.label in CLASSES else -1 for s in samples], dtype=np.int64)


def answers(seen: Seen, model: Judge) -> tuple[Floats, Bools, Bools, Floats]:
    """Return probabilities, whether the device answers (see `edge.network.decide`), whether it looks familiar, and how far it is.

    The distance is a share of the limit.
    """
    chances = probabilities(seen.logits, model.temperature)
    measure = model.typicality
    familiar = np.array([measure.of(traits) >= measure.limit for traits in seen.traits])
    limit = float(np.quantile(measure.distances, 1 - measure.limit))
    distance = np.array([measure.distance(traits) for traits in seen.traits]) / limit
    single = (chances >= model.candidate).sum(axis=1) == 1
    return chances, single & familiar, familiar, distance


def heat_in_lungs(seen: Seen, lungs: Bools) -> Floats:
    """Return the share of the positive heat of the likeliest class that lies in the lungs, shape (n,).

    Args:
        seen: of n pictures.
        lungs: shape (n, side, side).
    """
    best = seen.logits.argmax(axis=1)
    heat = np.maximum(seen.heat[np.arange(len(best)), :, :, best], 0)
    side, rows = lungs.shape[1], heat.shape[1]
    cells = lungs.reshape(-1, rows, side // rows, rows, side // rows).mean(axis=(2, 4))
    return np.asarray((heat * cells).sum(axis=(1, 2)) / (heat.sum(axis=(1, 2)) + 1e-9), dtype=np.float64)


def of_left_out(material: Material, recipe: Recipe, make: Make, say: Callable[[str], None]) -> dict[str, Figure]:
    """Return, for each source, what models that have never seen it make of it, and how many of the others' pictures they answer.

    There is one such model for each fold, trained without the source and without the fold's test part: how far a stranger is from
    what a model knows depends much on which patients that are. Of a picture of the source the share of the models counts.
    """
    result = {}
    source = np.array([sample.source for sample in material.samples])
    people = patients(material.samples)
    for name in np.unique(source):
        theirs = np.flatnonzero(source == name)
        pixels, samples = material.pixels[theirs], [material.samples[i] for i in theirs]
        said, answered = [], np.zeros(len(source), np.bool_)
        known = replace(material, views=material.views_without(str(name)))
        for fold, split in enumerate(material.splits):
            model = make(known, split, recipe, str(name))
            ours = split.test[source[split.test] != name]
            said.append(verdicts(run(model.graph, pixels), samples, model))
            answered[ours] = answers(run(model.graph, material.pixels[ours]), model)[1]
            say(f"fold {fold} without {name} trained")
        result[str(name)] = shares(said, samples) | {"seen": confident(answered[source != name], people[source != name])}
    return result


def of_children(material: Material, models: list[Finished], found: Found) -> dict[str, Figure]:
    """Return what the models of the folds make of children, of whom they have seen no label. found: of all folds."""
    seen = [run(model.graph, material.child_pixels) for model in models]
    said = [verdicts(part, material.children, model) for part, model in zip(seen, models, strict=True)]
    return shares(said, material.children) | {
        "called_covid19_share": round(float(np.mean([part.logits.argmax(axis=1) == COVID for part in seen])), 4),
        "seen": confident(found.answered, patients(material.samples)),
    }


def verdicts(seen: Seen, samples: list[Sample], model: Finished) -> Bools:
    """Return for each picture whether it gets a wrong answer, whether any, and whether it looks familiar; shape (3, n)."""
    chances, answered, familiar, _ = answers(seen, model)
    allowed = np.array([[s.label == name or (s.label not in CLASSES and name != "covid19") for name in CLASSES] for s in samples])
    wrong = answered & ~allowed[np.arange(len(samples)), chances.argmax(axis=1)]
    return np.stack([wrong, answered, familiar])


def shares(said: list[Bools], samples: list[Sample]) -> Figure:
    """Return the shares of pictures with each of the `verdicts` of several models, on average over the models."""
    wrong, answered, familiar = np.mean(said, axis=0)
    people = patients(samples)
    return {
        "confident_wrong": mean_of(wrong, people),
        "confident_wrong_by_model": [round(float(part[0].mean()), 4) for part in said],
        "answered": mean_of(answered, people),
        "familiar": mean_of(familiar, people),
    }


def shapes_of(samples: list[Sample]) -> tuple[Floats, Pixels]:
    """Return how far each file's shape is from a square, and network inputs of flat pictures of those shapes."""
    sizes = [decode_file(sample.file).image.size for sample in samples]
    return np.array([abs(np.log(height / width)) for width, height in sizes]), shape_only_inputs([(h, w) for w, h in sizes])


def as_predictions(found: Found, material: Material) -> list[Predictions]:
    """Return the folds' predictions, int8 and float, and those with the middle black."""
    common: dict[str, Any] = {
        "network": "ours",
        "classes": list(CLASSES),
        "protocol": f"{int(found.fold.max()) + 1}-fold",
        "grouped": True,
        "pictures": [as_picture(sample) for sample in material.samples],
        "fold": found.fold.tolist(),
        "temperature": found.temperature.tolist(),
        "threshold": found.candidate.tolist(),
        "typicality": found.distance.round(4).tolist(),
    }
    return [
        Predictions(**common, precision="int8", logits=found.logits.round(5).tolist(), answered=found.answered.tolist()),
        Predictions(**common, precision="float32", logits=found.floats.round(5).tolist()),
        Predictions(**common, precision="int8", condition="centre_out", logits=found.black.round(5).tolist()),
    ]
