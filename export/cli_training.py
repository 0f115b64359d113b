"""The commands of `cxr-export` that train by a recipe. TensorFlow is imported only when one of them runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from export.cli_options import FILE, FOLDER, named_file
from export.errors import WeightsError

STRATEGIES = ("none", "mirrored", "multiworker")
PROTOCOLS = ("holdout", "p3", "nested5", "tenfold", "fivefold")


_TRAINING = (
    click.option("--data", type=FOLDER, required=True, help="Folder of the labelled X-rays."),
    click.option("--set", "sets", multiple=True, default=("darkcovid",), show_default=True, help="Which data sets; several times."),
    click.option("--out", type=FOLDER, required=True, help="Folder to write, or one whose training was interrupted."),
    click.option("--epochs", type=click.IntRange(1), default=None, help="Instead of the recipe's, in all."),
    click.option("--pictures", type=click.IntRange(8), default=None, help="About so many, of all classes alike, for a trial."),
    click.option("--side", type=click.IntRange(32), default=None, help="Pixels on a side instead of the recipe's."),
    click.option("--classes", default=None, metavar="A,B,...", help="Instead of the recipe's, for data that lacks some."),
    click.option("--weights", multiple=True, metavar="BACKBONE=FILE", help="FILE, imagenet or random; several times if need be."),
    click.option("--strategy", type=click.Choice(STRATEGIES), default="none", help="TensorFlow's, for more devices."),
)


def _for_training(command: Any) -> Any:
    for option in reversed(_TRAINING):
        command = option(command)
    return command


def _training(names: Sequence[str], options: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return the recipes, with the options that override them, and the options that they have in common."""
    from export.networks.catalog import find
    from export.recipe import load_recipe, with_overrides
    from export.strategy import make_strategy

    recipes = [load_recipe(name) for name in names]
    files = {name: str(file) for name, file in (named_file(text) for text in options["weights"])}
    backbones = [set(find(recipe.network).backbones) for recipe in recipes]
    for name in files:
        if not any(name in mine for mine in backbones):
            raise WeightsError(f"{recipes[0].network} has no backbone {name}. `cxr-export networks` lists them.")
    changed = [
        with_overrides(
            recipe,
            epochs=options["epochs"],
            side=options["side"],
            classes=options["classes"].split(",") if options["classes"] else None,
            weights={name: file for name, file in files.items() if name in mine},
        )
        for recipe, mine in zip(recipes, backbones, strict=True)
    ]
    common = {name: options[name] for name in ("data", "sets", "out", "pictures")}
    return changed, {**common, "strategy": make_strategy(options["strategy"]), "say": click.echo}


@click.command("train")
@click.argument("recipe")
@_for_training
def train_command(recipe: str, **options: Any) -> None:
    """Train a network by RECIPE (a name or a TOML file): weights, history, curves, and its int8 file."""
    from export.train_one import train_one

    (chosen,), common = _training([recipe], options)
    train_one(chosen, **common)


@click.command("choose")
@click.argument("recipes", nargs=-1, required=True, metavar="RECIPE...")
@_for_training
def choose_command(recipes: tuple[str, ...], **options: Any) -> None:
    """Train every RECIPE on the same patients and choose by accuracy, then loss, on held-out ones; the test part stays unseen."""
    from export.train_one import choice_table, choose

    chosen, common = _training(recipes, options)
    click.echo(choice_table(choose(chosen, **common)))


@click.command("crossval")
@click.argument("recipe")
@click.option("--protocol", type=click.Choice(PROTOCOLS), default="fivefold", show_default=True)
@click.option("--also-ungrouped", is_flag=True, help="Also split by picture, as the publications do; printed as inflated.")
@click.option("--splits", type=FILE, default=None, help="The folds of another run: its splits.json.")
@click.option("--int8/--no-int8", default=True, show_default=True, help="Whether the int8 file of each fold is tested too.")
@_for_training
def crossval_command(recipe: str, protocol: Any, also_ungrouped: bool, splits: Path | None, int8: bool, **options: Any) -> None:
    """Train and test a network by RECIPE, fold by fold, by patient."""
    from export.crossval import crossval
    from export.networks.catalog import find
    from export.recipe import load_recipe, shortened

    (chosen,), common = _training([recipe], options)
    less = shortened(load_recipe(recipe), chosen, find(chosen.network).side)
    crossval(chosen, **common, protocol=protocol, also_ungrouped=also_ungrouped, splits=splits, int8=int8, shortened=less)


@click.command("bundle")
@click.argument("training", type=FOLDER)
@click.option("--data", type=FOLDER, required=True, help="Folder of the labelled X-rays that it was trained on.")
@click.option(
    "--set", "sets", multiple=True, default=("darkcovid",), show_default=True, help="Which of its data sets, as in train."
)
@click.option("--out", type=FOLDER, required=True, help="Bundle folder to write; nothing may be in it.")
@click.option("--name", required=True, help="Of the bundle.")
@click.option("--version", required=True, help="Of the bundle.")
@click.option("--licence", required=True, help="Of the weights, one line: whoever gave the pictures may set terms.")
def bundle_command(training: Path, data: Path, sets: tuple[str, ...], out: Path, name: str, version: str, licence: str) -> None:
    """Make a bundle that a device can verify of TRAINING, a folder of `train`; its ONNX file is written beside it."""
    from export.bundle_training import bundle_training

    bundle_training(training, data, sets, out, name=name, version=version, licence=licence, say=click.echo)


TRAINING_COMMANDS = (train_command, choose_command, crossval_command, bundle_command)
