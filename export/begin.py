"""What has to be right before a training starts: the data, the network, and the folder it goes into."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from export.dataset import Sample, some_of_each
from export.errors import DataError, RecipeError
from export.layouts.registry import read_folder
from export.networks.catalog import Network, find
from export.pixels import PREFIX
from export.recipe import Recipe, differences
from export.requirements import require_trainable
from export.strategy import ONE_DEVICE, Strategy
from export.training import require_network

BEGUN = "begun.json"

_SEED = 1
"""Of the choice of pictures for a quick trial."""


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """With what a folder was begun. pictures: SHA-256 of their names and labels."""

    recipe: Recipe
    pictures: str


def gather(data: Path, sets: Sequence[str], recipe: Recipe, count: int | None = None) -> tuple[Network, list[Sample]]:
    """Return the network and the labelled pictures of the recipe's classes.

    Args:
        data: folder with a folder for each set, in any of the layouts of `export.layouts`.
        sets: their names.
        recipe: names the network and the classes.
        count: take about that many, of each class as many; None takes all.

    Raises:
        ExportError: if there is no such network or set, a class has no picture or too few patients, or weights are not there.
    """
    network = find(recipe.network)
    require_network(recipe, network)
    samples = [sample for name in sets for sample in read_folder(data / name, recipe.classes)]
    require_trainable(samples, recipe.classes)
    if count is not None:
        samples = some_of_each(samples, count, _SEED)
    return network, samples


def begin(folder: Path, recipe: Recipe, samples: Sequence[Sample], strategy: Strategy = ONE_DEVICE) -> None:
    """Make the folder and note with what it was begun, or return if that is the same as now. Only the chief notes and compares.

    Raises:
        RecipeError: if it was begun with another recipe.
        DataError: if it was begun with other pictures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not strategy.chief:
        return
    digest = hashlib.sha256("\n".join(f"{sample.key} {sample.label}" for sample in samples).encode()).hexdigest()
    now = Begun(recipe=recipe, pictures=digest)
    path = folder / BEGUN
    try:
        before = msgspec.json.decode(path.read_bytes(), type=Begun)
    except FileNotFoundError:
        # Another machine may have decoded its pictures already.
        if any(not path.name.startswith(PREFIX) for path in folder.iterdir()):
            raise RecipeError(f"{folder} holds something else than a training. Choose another folder.") from None
        path.write_bytes(msgspec.json.encode(now) + b"\n")
        return
    except msgspec.DecodeError as error:
        raise RecipeError(f"{path} is damaged ({error}). Choose another folder, or remove this one.") from None
    if before.recipe != recipe:
        what = ", ".join(differences(before.recipe, recipe))
        raise RecipeError(f"{folder} was begun with another recipe ({what} differs). Choose another folder, or remove it.")
    if before.pictures != digest:
        raise DataError(f"{folder} was begun with other pictures. Choose another folder, or remove it.")
