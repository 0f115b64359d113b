"""Recipes: those that come along, and what is refused."""

from __future__ import annotations

import json

import pytest

from export.errors import RecipeError
from export.networks.catalog import CATALOG, find
from export.recipe import (
    FOLDER,
    Augmentation,
    OneCycle,
    differences,
    known_recipes,
    load_recipe,
    parse_recipe,
    shortened,
    with_overrides,
)
from export.training import require_network

SMALL = {"network": "p3", "classes": ["normal", "covid19"], "epochs": 4, "batch": 2, "optimizer": "sgd", "rate": 0.1}


def refused(**changes):
    with pytest.raises(RecipeError) as caught:
        parse_recipe({**SMALL, **changes}, "x.toml", FOLDER)
    return str(caught.value)


def test_every_network_of_others_has_a_recipe_that_fits_it():
    recipes = [load_recipe(name) for name in known_recipes()]
    assert {recipe.network for recipe in recipes} == {network.name for network in CATALOG} - {"ours"}
    for recipe in recipes:
        require_network(recipe, find(recipe.network))
        assert recipe.side == find(recipe.network).side


def test_what_the_publications_say_is_what_is_trained():
    p1, p3, p5 = load_recipe("p1-resnet50"), load_recipe("p3"), load_recipe("p5-concatenated")
    assert (p1.optimizer, p1.rate, p1.batch, p1.all_epochs, p1.loss, p1.split_seed) == ("adam", 1e-4, 16, 20, "binary", 11)
    assert (p1.plateau.factor, p1.plateau.patience, p1.frozen.epochs > 0) == (0.2, 5, True)
    assert (p3.optimizer, p3.rate, p3.batch, p3.epochs, p3.side) == ("rmsprop", 1e-4, 5, 25, 200)
    assert (p3.plateau.factor, p3.plateau.patience, p3.plateau.monitor) == (0.5, 2, "val_accuracy")
    assert (load_recipe("p2-resnet50").epochs, p5.epochs, p5.batch, p5.side) == (30, 35, 16, 256)
    assert len(load_recipe("p4-fusion").classes) == 4
    assert {load_recipe(name).balance for name in ("p4-fusion", "p4-covidnet")} == {"oversample"}
    peer = load_recipe("darkcovidnet")
    assert (peer.epochs, peer.rate, peer.batch, peer.side, peer.one_cycle) == (100, 3e-3, 32, 256, OneCycle())


def test_one_cycle_climbs_and_falls():
    cycle = OneCycle()
    rates = [cycle.rate(3e-3, done) for done in (0, 0.15, 0.3, 0.65, 1)]
    assert rates == pytest.approx([3e-3 / 25, 3e-3 * 26 / 50, 3e-3, 3e-3 / 2, 3e-3 / 25e4], rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"ratte": 1}, "a recipe has no key ratte; the nearest is rate."),
        ({"plateau": {"factr": 0.5}}, "[plateau] has no key factr; the nearest is factor."),
        ({"epochs": 0}, "`$.epochs`"),
        ({"classes": ["normal"]}, "`$.classes`"),
        ({"classes": ["normal", "normal"]}, "a class is named twice"),
        ({"classes": ["a", "b", "c"], "loss": "binary"}, "binary is for two classes, not 3"),
        ({"plateau": {"factor": 0.5, "patience": 1}, "one_cycle": {}}, "both plateau and one_cycle"),
    ],
)
def test_what_cannot_be_is_named(changes, part):
    assert part in refused(**changes)


def test_a_name_that_is_nearly_right(tmp_path):
    with pytest.raises(RecipeError, match=r"no recipe 'p33', and no such file; the nearest name is p3\."):
        load_recipe("p33")
    (tmp_path / "x.toml").write_text("network = ")
    with pytest.raises(RecipeError, match="is not TOML"):
        load_recipe(str(tmp_path / "x.toml"))


def test_a_file_of_ones_own_finds_its_weights_beside_it(tmp_path):
    lines = [f"{key} = {json.dumps(value)}" for key, value in SMALL.items()]
    (tmp_path / "x.toml").write_text("\n".join([*lines, "[weights]", 'A = "a.h5"', 'B = "imagenet"']))
    assert load_recipe(str(tmp_path / "x.toml")).weights == {"A": str(tmp_path / "a.h5"), "B": "imagenet"}


def test_a_shorter_trial_keeps_the_share_of_frozen_epochs():
    recipe = load_recipe("p1-resnet50")
    assert [with_overrides(recipe, epochs=n).all_epochs for n in (1, 2, 5)] == [1, 2, 5]
    assert with_overrides(recipe, epochs=4).frozen.epochs == 2
    assert with_overrides(recipe, epochs=1).frozen is None
    three = with_overrides(load_recipe("p4-fusion"), classes=["normal", "pneumonia", "covid19"], side=64)
    assert differences(three, load_recipe("p4-fusion")) == ["classes", "side"]
    assert three.augmentation == Augmentation(rotation=10, zoom=0.15, width_shift=0.1, height_shift=0.1, only_copies=True)
    with pytest.raises(RecipeError, match="the command line: a class is named twice"):
        with_overrides(recipe, classes=["a", "a"])


def test_what_is_less_than_published_is_said():
    published = load_recipe("darkcovidnet")
    brief = with_overrides(published, epochs=40, side=128)
    assert shortened(published, brief, 256) == f"pixels 128 instead of 256, epochs 40 instead of {published.all_epochs}"
    assert shortened(published, published, 256) == ""
