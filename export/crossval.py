"""`cxr-export crossval`: a protocol, fold by fold, by patient and, beside it, as the publications split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from export.batches import Pictures
from export.begin import begin, gather
from export.calibrate import fit_temperature, fit_threshold
from export.dataset import Sample, targets
from export.errors import RecipeError
from export.fold_scores import Scores, score_table, scores_of
from export.metrics import Estimate, accuracy_interval, confusion
from export.near_duplicates import Pair, near_duplicates, parted
from export.networks.catalog import Network
from export.outcome import Unseen, close_training, write_outcome
from export.pixels import mapped_pixels, remove_pixels
from export.predictions import Precision, Predictions, as_picture, read_predictions, write_predictions
from export.protocols import (
    NamedSplit,
    Plan,
    Protocol,
    RecordedPlan,
    make_plan,
    read_plan,
    record_plan,
    replay_plan,
    shared_patients,
)
from export.recipe import Recipe
from export.strategy import ONE_DEVICE, Strategy
from export.training import Floats, Say, train_network

PREDICTIONS, SPLITS, SCORES = "predictions.json", "splits.json", "scores.json"


class PlanScores(msgspec.Struct, frozen=True, kw_only=True):
    """Of one plan.

    rows: a fold each, the last one of all folds together. shared: share of the tested pictures whose patient was trained on.
    near_duplicates: pairs of pictures that look like one exposure and lie on two sides of a split, as "DATASET/PATH DATASET/PATH".
    """

    network: str
    protocol: str
    grouped: bool
    precision: str
    classes: list[str]
    positive: str
    shared: float
    near_duplicates: list[str] = []
    accuracy: dict[str, float]
    rows: list[Scores]
    remarks: list[str]


@dataclass(frozen=True)
class Data:
    """What all folds have in common."""

    recipe: Recipe
    network: Network
    samples: list[Sample]
    pictures: Pictures
    int8: bool
    strategy: Strategy


def crossval(
    recipe: Recipe,
    data: Path,
    sets: Sequence[str],
    out: Path,
    *,
    protocol: Protocol,
    also_ungrouped: bool = False,
    splits: Path | None = None,
    pictures: int | None = None,
    int8: bool = True,
    shortened: str = "",
    strategy: Strategy = ONE_DEVICE,
    say: Say,
) -> list[PlanScores]:
    """Run a protocol; write predictions.json (all logits of unseen pictures), scores.json, and a folder for each fold.

    A fold that is finished is not trained again; one that was interrupted goes on.

    Args:
        recipe: of every fold; the seed is the same, the patients differ.
        data: folder with a folder for each set.
        sets: their names.
        out: where to; begun by the same recipe, or new.
        protocol: see `export.protocols`.
        also_ungrouped: also split by picture, as the publications do, and print it beside as inflated.
        splits: a recorded plan (splits.json of another run) instead of a new one.
        pictures: take about that many, for a quick trial.
        int8: convert every fold's network and test that too.
        shortened: what is not as the recipe was published, in words that go wherever the protocol is named.
        strategy: on which devices.
        say: receives progress lines and tables, and how many near duplicates lie on two sides of a split.

    Raises:
        ExportError: if something is not right; before any training starts.
    """
    network, samples = gather(data, sets, recipe, pictures)
    plans = (
        [_plan(recipe, samples, protocol, True)] if splits is None else [replay_plan(read_plan(splits), samples, recipe.classes)]
    )
    if also_ungrouped:
        plans.append(_plan(recipe, samples, plans[0].protocol, False))
    begin(out, recipe, samples, strategy)
    for plan in plans if strategy.chief else ():
        _note_plan(out / _folder(plan), record_plan(plan, samples, recipe.classes))
    side = recipe.side or network.side
    ready = Pictures(mapped_pixels(samples, side, out), targets(samples, recipe.classes), len(recipe.classes))
    shared = Data(recipe, network, samples, ready, int8, strategy)
    pairs = near_duplicates(ready.pixels)
    found: list[Predictions] = []
    scores: list[PlanScores] = []
    for plan in plans:
        alike = list(dict.fromkeys(pair for named in plan.splits for pair in parted(named.split, pairs, len(samples))))
        for remark in (*plan.remarks, _on_duplicates(plan, alike, samples)):
            say(remark)
        mine = _pooled([_fold(shared, plan, number, out, say) for number in range(len(plan.splits))], shortened)
        found += mine
        for predictions in mine:
            scores.append(_scores(predictions, plan, samples, recipe, alike))
            say(describe(scores[-1]))
    with strategy.place(out) as place:
        write_predictions(place / PREDICTIONS, found)
        (place / SCORES).write_bytes(msgspec.json.format(msgspec.json.encode(scores), indent=1) + b"\n")
        remove_pixels(place)
    return scores


def describe(scores: PlanScores) -> str:
    """Return the tables of one plan as text."""
    how = (
        "by patient"
        if scores.grouped
        else f"by picture, INFLATED: {scores.shared:.0%} of the tested pictures share a patient with training"
    )
    value, low, high = (scores.accuracy[name] for name in ("value", "low", "high"))
    table = score_table(scores.rows, scores.classes, scores.classes.index(scores.positive))
    return (
        f"\n{scores.network}, {scores.protocol}, {scores.precision}, {how}\n{table}\n"
        f"{'' if scores.grouped else 'inflated '}accuracy {value:.4f} (95% interval {low:.4f} to {high:.4f}, patients resampled)"
    )


def _plan(recipe: Recipe, samples: list[Sample], protocol: Protocol, grouped: bool) -> Plan:
    return make_plan(samples, recipe.classes, protocol, grouped=grouped, seed=recipe.split_seed, validation=recipe.validation)


def _folder(plan: Plan) -> str:
    return "by-patient" if plan.grouped else "by-picture-inflated"


def _note_plan(folder: Path, recorded: RecordedPlan) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / SPLITS
    if path.exists():
        before = read_plan(path)
        if before != recorded:
            raise RecipeError(f"{folder} was begun with other splits ({before.protocol}). Choose another folder, or remove it.")
        return
    path.write_bytes(msgspec.json.encode(recorded) + b"\n")


def _fold(data: Data, plan: Plan, number: int, out: Path, say: Say) -> list[Predictions]:
    """Return the predictions of a fold, in float and int8; trained only if it is not finished."""
    named = plan.splits[number]
    folder = out / _folder(plan) / named.name
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / PREDICTIONS
    if file.exists():
        say(f"{_folder(plan)}, {named.name}: finished before")
        return read_predictions(file)
    split = named.split
    say(
        f"{_folder(plan)}, {named.name}: learns from {len(split.train)}, {len(split.validation)} held out, {len(split.test)} tested"
    )
    trained = train_network(
        data.recipe, data.network, data.pictures, split.train, split.validation, folder, strategy=data.strategy, say=say
    )
    with data.strategy.place(folder) as place:
        result, floats, fixed = write_outcome(
            place, trained, data.samples, data.pictures, split, data.recipe, data.network, int8=data.int8, say=say
        )
        both: list[tuple[Precision, Unseen | None]] = [("float32", floats), ("int8", fixed)]
        found = [_predictions(data, plan, named, number, name, unseen) for name, unseen in both if unseen is not None]
        beside = place / f"{PREDICTIONS}.new"
        write_predictions(beside, found)
        close_training(place, result)
        beside.replace(place / PREDICTIONS)
    return found


def _predictions(data: Data, plan: Plan, named: NamedSplit, number: int, precision: Precision, unseen: Unseen) -> Predictions:
    held_out = data.pictures.targets[named.split.validation]
    temperature = fit_temperature(unseen.validation, held_out)
    threshold = fit_threshold(unseen.validation, temperature)
    count = len(named.split.test)
    return Predictions(
        network=data.network.name,
        classes=data.recipe.classes,
        protocol=plan.protocol,
        grouped=plan.grouped,
        precision=precision,
        pictures=[as_picture(data.samples[i]) for i in named.split.test],
        fold=[number] * count,
        logits=unseen.test.tolist(),
        temperature=[temperature] * count,
        threshold=[threshold] * count,
    )


def _pooled(folds: Sequence[list[Predictions]], shortened: str) -> list[Predictions]:
    """Return the predictions of all folds in one, for each precision."""
    pooled = []
    for parts in zip(*folds, strict=True):
        columns = {
            name: [entry for part in parts for entry in getattr(part, name)]
            for name in ("pictures", "fold", "logits", "temperature", "threshold")
        }
        protocol = "; ".join(filter(None, (parts[0].protocol, shortened)))
        pooled.append(msgspec.structs.replace(parts[0], protocol=protocol, **columns))
    return pooled


def _on_duplicates(plan: Plan, pairs: Sequence[Pair], samples: Sequence[Sample]) -> str:
    if not pairs:
        return f"{_folder(plan)}: no near duplicates on two sides of a split"
    first = pairs[0]
    return (
        f"{_folder(plan)}: {len(pairs)} pairs of pictures look like one exposure and lie on two sides of a split, the likest "
        f"{samples[first.first].key} and {samples[first.second].key}. `cxr-export data` lists those of two patient codes."
    )


def _scores(predictions: Predictions, plan: Plan, samples: Sequence[Sample], recipe: Recipe, alike: Sequence[Pair]) -> PlanScores:
    truth, fold, logits = predictions.truth(), np.array(predictions.fold), predictions.scores()
    classes, positive = len(recipe.classes), recipe.positive
    answer = np.asarray(logits.argmax(axis=1), dtype=np.int64)
    tables: list[tuple[str, Floats]] = [
        (named.name, confusion(truth[fold == number], answer[fold == number], classes)) for number, named in enumerate(plan.splits)
    ]
    if len(tables) > 1:
        tables.append(("all", np.sum([table for _, table in tables], axis=0)))
    estimate: Estimate = accuracy_interval(truth, answer, classes, predictions.patients())
    return PlanScores(
        network=predictions.network,
        protocol=predictions.protocol,
        grouped=predictions.grouped,
        precision=predictions.precision,
        classes=recipe.classes,
        positive=recipe.classes[positive],
        shared=shared_patients(samples, plan.splits),
        near_duplicates=[f"{samples[pair.first].key} {samples[pair.second].key}" for pair in alike],
        accuracy={"value": estimate.value, "low": estimate.low, "high": estimate.high},
        rows=[scores_of(name, table, positive) for name, table in tables],
        remarks=plan.remarks,
    )
