"""A recipe: everything that the training of a network of the catalogue depends on, besides the pictures.

Recipes are TOML files of overrides: what a file does not name stays as it is here. Those of the publications are in
`export/recipes`, each number with its source beside it.
"""

from __future__ import annotations

import difflib
import math
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from export.errors import RecipeError

FOLDER = Path(__file__).parent / "recipes"

IMAGENET = "imagenet"
RANDOM = "random"
"""In the place of a file of weights: those of keras.applications, and none."""

Count = Annotated[int, Meta(ge=1)]
Rate = Annotated[float, Meta(gt=0, le=1)]
Share = Annotated[float, Meta(ge=0, lt=1)]
Monitor = Literal["val_loss", "val_accuracy"]


class Frozen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The first epochs, in which borrowed backbones are held still and only the head learns."""

    epochs: Count
    rate: Rate


class Plateau(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rate is multiplied by `factor` when `monitor` has not got better for `patience` epochs, down to `floor`."""

    factor: Annotated[float, Meta(gt=0, lt=1)]
    patience: Count
    monitor: Monitor = "val_loss"
    floor: Annotated[float, Meta(ge=0)] = 0.0


class OneCycle(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rate climbs from a part of the recipe's to all of it and falls to nearly nothing, along half cosines.

    Smith 2018, "A disciplined approach to neural network hyper-parameters", with the shape and the defaults of fastai 1. climb:
    share of the epochs in which it climbs. divide: by what the first rate is smaller than the highest. end: by what the last is
    smaller than the first.
    """

    climb: Annotated[float, Meta(gt=0, lt=1)] = 0.3
    divide: Annotated[float, Meta(ge=1)] = 25.0
    end: Annotated[float, Meta(ge=1)] = 1e4

    def rate(self, highest: float, done: float) -> float:
        """Return the rate when the share `done`, 0..1, of the training is over."""
        low = highest / self.divide
        start, stop, part = (low, highest, done / self.climb)
        if done > self.climb:
            start, stop, part = (highest, low / self.end, (done - self.climb) / (1 - self.climb))
        return stop + (start - stop) * (1 + math.cos(math.pi * part)) / 2


class Augmentation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Largest random changes, each drawn evenly from minus to plus that.

    rotation, shear: degrees. zoom, width_shift, height_shift: fractions of the side. flip: mirror half of the pictures, left to
    right. only_copies: change only the copies that `balance = "oversample"` adds.
    """

    rotation: Annotated[float, Meta(ge=0, le=180)] = 0.0
    shear: Annotated[float, Meta(ge=0, lt=80)] = 0.0
    zoom: Share = 0.0
    width_shift: Share = 0.0
    height_shift: Share = 0.0
    flip: bool = False
    only_copies: bool = False


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One training.

    network: name in the catalogue. classes: two to four, in the order of the outputs; a picture belongs to the class of its
    label's name, or to a class `non_LABEL`, which takes every other label; other pictures are left out. side: pixels on a side, or
    none for the publication's. frozen: before `epochs`, the epochs in which everything learns at `rate`, the highest one of
    `one_cycle`. loss: `binary` is of the sigmoid of the second logit minus the first. balance: `weights` weighs every class as if
    they were of one size, `oversample` repeats pictures until they are. validation: share of the training part that is held out.
    seed: of weights, order and changes. split_seed: of the split. weights: backbone -> file (relative to the recipe's), "imagenet"
    or "random".
    """

    network: str
    classes: Annotated[list[str], Meta(min_length=2, max_length=4)]
    epochs: Count
    batch: Count
    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"]
    rate: Rate
    side: Annotated[int, Meta(ge=32, le=1024)] | None = None
    frozen: Frozen | None = None
    plateau: Plateau | None = None
    one_cycle: OneCycle | None = None
    loss: Literal["categorical", "binary"] = "categorical"
    augmentation: Augmentation = Augmentation()
    balance: Literal["none", "weights", "oversample"] = "none"
    validation: Annotated[float, Meta(gt=0, le=0.5)] = 0.2
    seed: int = 0
    split_seed: int = 7
    weights: dict[str, str] = {}

    @property
    def all_epochs(self) -> int:
        """With the frozen ones."""
        return self.epochs + (self.frozen.epochs if self.frozen else 0)

    @property
    def positive(self) -> int:
        """Index of the class that sensitivity is of: the one with covid in its name, else the last."""
        named = [i for i, name in enumerate(self.classes) if "covid" in name and not name.startswith("non")]
        return named[0] if named else len(self.classes) - 1


def known_recipes() -> list[str]:
    """Return the names of the recipes that come along."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_recipe(which: str) -> Recipe:
    """Return a recipe by its name, or from a TOML file by its path.

    Raises:
        RecipeError: if there is none, or it is not a recipe.
    """
    path = FOLDER / f"{which}.toml" if which in known_recipes() else Path(which)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        near = difflib.get_close_matches(which, known_recipes(), n=1, cutoff=0.5)
        hint = f"the nearest name is {near[0]}" if near else f"the names are {', '.join(known_recipes())}"
        raise RecipeError(f"There is no recipe {which!r}, and no such file; {hint}.") from None
    try:
        table = msgspec.toml.decode(text)
    except msgspec.DecodeError as error:
        raise RecipeError(f"{path} is not TOML: {error}.") from None
    return parse_recipe(table, path.name, path.parent)


def parse_recipe(table: dict[str, Any], name: str, folder: Path) -> Recipe:
    """Return the recipe of a table.

    Args:
        table: what the TOML file says.
        name: of the file, for sentences.
        folder: where the files of weights are looked for, if their paths are not absolute.

    Raises:
        RecipeError: if a key is unknown or a value cannot be.
    """
    _refuse_unknown(table, Recipe, name)
    try:
        recipe = msgspec.convert(table, Recipe)
    except msgspec.ValidationError as error:
        raise RecipeError(f"{name}: {error}. Correct the recipe.") from None
    if len(set(recipe.classes)) < len(recipe.classes):
        raise RecipeError(f"{name}: a class is named twice: {', '.join(recipe.classes)}.")
    if recipe.plateau and recipe.one_cycle:
        raise RecipeError(f"{name}: the rate cannot follow both plateau and one_cycle. Remove one of them.")
    if recipe.loss == "binary" and len(recipe.classes) != 2:
        raise RecipeError(f"{name}: the loss binary is for two classes, not {len(recipe.classes)}. Take categorical.")
    files = {backbone: file if file in (IMAGENET, RANDOM) else str(folder / file) for backbone, file in recipe.weights.items()}
    return msgspec.structs.replace(recipe, weights=files)


def with_overrides(
    recipe: Recipe,
    *,
    epochs: int | None = None,
    side: int | None = None,
    classes: list[str] | None = None,
    weights: dict[str, str] | None = None,
) -> Recipe:
    """Return the recipe with what the command line says instead.

    Args:
        recipe: to start from.
        epochs: in all; the frozen ones keep their share.
        side: pixels on a side.
        classes: others, for data that lacks some.
        weights: backbone -> file, "imagenet" or "random"; backbones that are not named stay as they are.

    Raises:
        RecipeError: if a value cannot be.
    """
    table: dict[str, Any] = msgspec.to_builtins(recipe)
    if epochs is not None:
        still = min(round(epochs * (recipe.all_epochs - recipe.epochs) / recipe.all_epochs), epochs - 1)
        table["epochs"] = epochs - still
        table["frozen"] = {**table["frozen"], "epochs": still} if still else None
    table["side"] = recipe.side if side is None else side
    table["classes"] = classes or recipe.classes
    table["weights"] = {**recipe.weights, **(weights or {})}
    return parse_recipe(table, "the command line", Path())


def shortened(published: Recipe, recipe: Recipe, side: int) -> str:
    """Return in words how many pixels and epochs a recipe has instead of the published ones; side: of the network."""
    sides, epochs = (published.side or side, recipe.side or side), (published.all_epochs, recipe.all_epochs)
    changed = [(name, before, now) for name, (before, now) in (("pixels", sides), ("epochs", epochs)) if before != now]
    return ", ".join(f"{name} {now} instead of {before}" for name, before, now in changed)


def differences(first: Recipe, second: Recipe) -> list[str]:
    """Return the names of the fields in which two recipes differ."""
    return [name for name in Recipe.__struct_fields__ if getattr(first, name) != getattr(second, name)]


def _refuse_unknown(table: dict[str, Any], kind: type[msgspec.Struct], name: str, where: str = "a recipe") -> None:
    """The refusal of msgspec itself does not say which key was meant."""
    fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
    for key, value in table.items():
        if key not in fields:
            near = difflib.get_close_matches(key, list(fields), n=1, cutoff=0.4)
            hint = f"the nearest is {near[0]}" if near else f"there are {', '.join(fields)}"
            raise RecipeError(f"{name}: {where} has no key {key}; {hint}.")
        for inner in (fields[key], *get_args(fields[key])):
            if isinstance(inner, type) and issubclass(inner, msgspec.Struct) and isinstance(value, dict):
                _refuse_unknown(value, inner, name, f"[{key}]")
