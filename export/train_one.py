"""`cxr-export train` and `choose`: one training, and the best of several by what held-out patients say (P4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from export.batches import Pictures
from export.begin import begin, gather
from export.dataset import Sample, targets
from export.errors import RecipeError
from export.networks.catalog import find
from export.outcome import Result, close_training, read_result, write_outcome
from export.pixels import mapped_pixels, remove_pixels
from export.protocols import make_plan, record_plan, training_only
from export.recipe import Recipe
from export.splits import Split
from export.strategy import ONE_DEVICE, Strategy
from export.training import Say, train_network

CHOICE = "choice.json"
SPLITS = "splits.json"


def train_one(
    recipe: Recipe,
    data: Path,
    sets: Sequence[str],
    out: Path,
    *,
    pictures: int | None = None,
    strategy: Strategy = ONE_DEVICE,
    say: Say,
) -> Result:
    """Train one network on all patients but those held out for validation; write it and what is known of it into `out`.

    Raises:
        ExportError: if the data, the recipe, the weights or the folder are not right; before the training starts.
    """
    network, samples = gather(data, sets, recipe, pictures)
    split = training_only(samples, recipe.classes, seed=recipe.split_seed, validation=recipe.validation)
    begin(out, recipe, samples, strategy)
    done = read_result(out)
    if done is not None:
        say(f"{out} is finished: nothing to do")
        return done
    say(f"{network.name}: {len(split.train)} pictures to learn from, {len(split.validation)} of other patients held out")
    return _run(recipe, samples, split, out, strategy, say)


def choose(
    recipes: Sequence[Recipe],
    data: Path,
    sets: Sequence[str],
    out: Path,
    *,
    pictures: int | None = None,
    strategy: Strategy = ONE_DEVICE,
    say: Say,
) -> list[Result]:
    """Train every candidate on the same patients; return the results, the chosen one first.

    The choice is by accuracy on held-out patients, then by their loss. A fifth of the patients is put aside as the test part, whose
    pictures are not even decoded; `splits.json` names them, for the one test of the chosen network.

    Raises:
        RecipeError: if the candidates have different classes, or two are the same.
        ExportError: as `train_one`.
    """
    first = recipes[0]
    if any(recipe.classes != first.classes for recipe in recipes):
        raise RecipeError("The candidates have different classes, so that their accuracies do not compare. Use --classes.")
    names = [recipe.network for recipe in recipes]
    if len(set(names)) < len(names):
        raise RecipeError(f"A network is a candidate twice: {', '.join(names)}.")
    gathered = [gather(data, sets, recipe, pictures)[1] for recipe in recipes]
    samples = gathered[0]
    plan = make_plan(samples, first.classes, "holdout", grouped=True, seed=first.split_seed, validation=first.validation)
    whole = plan.splits[0].split
    known = np.sort(np.concatenate([whole.train, whole.validation]))
    kept = [samples[i] for i in known]
    split = Split(np.searchsorted(known, whole.train), np.searchsorted(known, whole.validation), known[:0])
    for recipe in recipes:
        begin(out / recipe.network, recipe, kept, strategy)
    if strategy.chief:
        (out / SPLITS).write_bytes(msgspec.json.encode(record_plan(plan, samples, first.classes)) + b"\n")
    results = []
    for recipe in recipes:
        say(f"candidate {recipe.network}: {len(split.train)} pictures to learn from, {len(split.validation)} held out")
        folder = out / recipe.network
        results.append(read_result(folder) or _run(recipe, kept, split, folder, strategy, say))
    ordered = sorted(results, key=lambda result: (-result.val_accuracy, result.val_loss))
    with strategy.place(out) as place:
        (place / CHOICE).write_bytes(msgspec.json.format(msgspec.json.encode(ordered), indent=1) + b"\n")
    return ordered


def choice_table(ordered: Sequence[Result]) -> str:
    """Return the candidates as text, the chosen one first."""
    lines = [f"{'candidate':<20} {'parameters':>12} {'epochs':>6}  {'accuracy':>8} {'loss':>8}"]
    for place, result in enumerate(ordered):
        mark = "  <- chosen" if place == 0 else ""
        lines.append(
            f"{result.network:<20} {result.parameters:>12,} {result.epochs:>6}  "
            f"{result.val_accuracy:>8.4f} {result.val_loss:>8.4f}{mark}"
        )
    lines.append(f"accuracy and loss on {ordered[0].held_out} held-out pictures")
    return "\n".join(lines)


def _run(recipe: Recipe, samples: Sequence[Sample], split: Split, folder: Path, strategy: Strategy, say: Say) -> Result:
    network = find(recipe.network)
    side = recipe.side or network.side
    pictures = Pictures(mapped_pixels(samples, side, folder), targets(samples, recipe.classes), len(recipe.classes))
    trained = train_network(recipe, network, pictures, split.train, split.validation, folder, strategy=strategy, say=say)
    with strategy.place(folder) as place:
        result, _, _ = write_outcome(place, trained, samples, pictures, split, recipe, network, int8=True, say=say)
        close_training(place, result)
        remove_pixels(place)
    return result
