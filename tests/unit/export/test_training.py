"""The training loop: it goes on after a kill, keeps still what is frozen, and knows when statistics are stale."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import msgspec
import numpy as np
import pytest

from export.checkpoint import NAME, load_checkpoint
from export.errors import FetchError, RecipeError, WeightsError
from export.legacy_keras import keras
from export.networks import heads
from export.networks.catalog import Network
from export.recipe import Frozen, OneCycle, Plateau
from export.strategy import make_strategy
from export.training import as_input, build_network, require_network
from tests.support.processes import free_port
from tests.support.tiny_training import PLAIN, RECIPE, TINY, TRAIN, make, pictures, tiny_training

QUIET = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
ENVIRONMENT = {**QUIET, "TF_NUM_INTRAOP_THREADS": "1"}


def but(**changes):
    return msgspec.structs.replace(RECIPE, **changes)


def silent(_):
    pass


def without_time(history):
    return [msgspec.structs.replace(row, seconds=0.0) for row in history]


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path):
    command = [sys.executable, "-m", "tests.support.tiny_training", "killed", str(tmp_path / "killed")]
    # With as many threads as this process has: on some processors another number of them adds up in another order.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=QUIET) as process:
        for line in process.stdout:
            if line.startswith("epoch   2/6"):
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    progress, _, _ = load_checkpoint(tmp_path / "killed")
    assert 2 <= progress.done < RECIPE.epochs
    lines = []
    resumed = tiny_training(tmp_path / "killed", say=lines.append)
    assert len(lines) == RECIPE.epochs - progress.done
    whole = tiny_training(tmp_path / "whole", say=silent)
    assert without_time(resumed.history) == without_time(whole.history)
    assert resumed.history[-1].rate < RECIPE.rate  # the plateau's count survived too
    for mine, theirs in zip(resumed.model.get_weights(), whole.model.get_weights(), strict=True):
        assert np.array_equal(mine, theirs)
    other = tiny_training(tmp_path / "other", but(seed=1), say=silent)
    assert not np.array_equal(other.model.get_weights()[0], whole.model.get_weights()[0])


@pytest.mark.soak
def test_two_devices_learn_what_one_learns(tmp_path):
    command = [sys.executable, "-m", "tests.support.tiny_training", "mirrored", str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=True).stdout
    found = dict(line.split(maxsplit=1) for line in said.replace("apart", "\napart").replace("same", "\nsame").splitlines() if line)
    assert found["replicas"].strip() == "2"
    assert float(found["apart"]) < 1e-5
    assert found["same"] == "True"
    assert float(found["norm"]) > 0.8


@pytest.mark.soak
def test_two_machines_end_with_one_network(tmp_path):
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    command = [sys.executable, "-m", "tests.support.tiny_training", "worker", str(tmp_path / "shared")]

    def start(index):
        config = json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**ENVIRONMENT, "TF_CONFIG": config})

    for _ in range(2):  # the second time there is nothing left to do, for any of them
        machines = [start(0), start(1)]
        said = [machine.communicate(timeout=250)[0].splitlines()[-1].split(maxsplit=1) for machine in machines]
        assert [who for who, _ in said] == ["chief", "other"]
        assert said[0][1] == said[1][1]
    assert load_checkpoint(tmp_path / "shared")[0].done == RECIPE.epochs


def test_frozen_backbones_keep_still_and_then_learn(tmp_path):
    (tmp_path / "w.h5").touch()
    recipe = but(frozen=Frozen(epochs=1, rate=0.05), epochs=1, weights={"Tiny": str(tmp_path / "w.h5")}, plateau=None)
    keras.utils.set_random_seed(recipe.seed)
    start = make(3, {}, 32)
    tiny_training(tmp_path / "a", recipe, say=silent)
    _, weights, _ = load_checkpoint(tmp_path / "a")
    assert [row.frozen for row in load_checkpoint(tmp_path / "a")[0].history] == [True, False]
    assert [row.rate for row in load_checkpoint(tmp_path / "a")[0].history] == [0.05, 0.01]
    half = tiny_training(tmp_path / "b", but(frozen=recipe.frozen, epochs=1, weights=recipe.weights, rate=1e-12), say=silent)
    assert np.allclose(half.model.get_layer("first").get_weights()[0], start.get_layer("first").get_weights()[0], atol=1e-6)
    assert not np.allclose(half.model.get_layer("head_scores").get_weights()[0], start.get_layer("head_scores").get_weights()[0])
    assert not np.allclose(weights[0], start.get_layer("first").get_weights()[0], atol=1e-4)


def test_without_weights_nothing_is_frozen(tmp_path):
    lines = []
    trained = tiny_training(tmp_path / "a", but(frozen=Frozen(epochs=1, rate=0.05), epochs=1), say=lines.append)
    assert lines[0] == "tiny: Tiny starts from random weights; --weights Tiny=FILE gives others."
    assert [row.frozen for row in trained.history] == [False, False]
    assert trained.started_from == []


def test_weights_that_cannot_be_fetched_are_done_without(monkeypatch):
    def fetch(weights, **_):
        assert weights == "imagenet"
        raise Exception("URL fetch failure on somewhere")  # noqa: TRY002  (as Keras does)

    monkeypatch.setattr(keras.applications, "MobileNetV2", fetch)
    with pytest.raises(FetchError, match="ImageNet weights of MobileNetV2 cannot be fetched from here: URL fetch failure"):
        heads.backbone("MobileNetV2", None, {"MobileNetV2": heads.IMAGENET})

    def fetching(classes, weights, side):
        if weights:
            raise FetchError("The ImageNet weights of Tiny cannot be fetched from here", "Tiny")
        return make(classes, weights, side)

    lines = []
    network = Network("tiny", "nobody", 32, 1, fetching, ("Tiny",))
    assert build_network(but(weights={"Tiny": "imagenet"}), network, 32, lines.append)[1] == []
    assert lines == [
        "The ImageNet weights of Tiny cannot be fetched from here. It starts from random weights; --weights Tiny=FILE gives others."
    ]


def test_the_rate_falls_where_nothing_gets_better(tmp_path):
    recipe = but(rate=1e-12, epochs=6, plateau=Plateau(factor=0.5, patience=2, monitor="val_accuracy", floor=3e-13), balance="none")
    rates = [row.rate for row in tiny_training(tmp_path / "a", recipe, PLAIN, silent).history]
    assert rates == [1e-12, 1e-12, 1e-12, 5e-13, 5e-13, 3e-13]


def test_the_rate_follows_its_cycle_after_the_frozen_epochs(tmp_path):
    cycle = OneCycle(climb=0.5, divide=10, end=10)
    recipe = but(rate=1e-3, epochs=2, frozen=Frozen(epochs=1, rate=0.05), plateau=None, one_cycle=cycle, balance="none")
    rates = [row.rate for row in tiny_training(tmp_path / "a", recipe, TINY, silent).history]
    assert rates == pytest.approx([0.05, cycle.rate(1e-3, 0.25), cycle.rate(1e-3, 0.75)])


def test_the_binary_loss_of_two_classes_is_the_categorical_one(tmp_path):
    two = but(classes=["normal", "covid19"], epochs=1, plateau=None)
    one, other = (
        tiny_training(tmp_path / loss, msgspec.structs.replace(two, loss=loss), PLAIN, silent) for loss in ("binary", "categorical")
    )
    assert one.history[0].loss == pytest.approx(other.history[0].loss, rel=1e-4)
    for mine, theirs in zip(one.model.get_weights(), other.model.get_weights(), strict=True):
        assert np.allclose(mine, theirs, atol=1e-4)


def test_statistics_are_those_of_the_pictures_after_a_few_steps(tmp_path):
    trained = tiny_training(tmp_path / "a", but(epochs=1, balance="none", rate=1e-6), say=silent)
    inner = keras.Model(trained.model.input, trained.model.get_layer("first").output)
    seen = inner.predict_on_batch(as_input(pictures().pixels[TRAIN], 1))
    mean, variance = trained.model.get_layer("norm").get_weights()[2:]
    assert np.allclose(mean, seen.mean(axis=(0, 1, 2)), atol=1e-3)
    assert np.allclose(variance, seen.var(axis=(0, 1, 2)), rtol=0.02)
    assert trained.model.get_layer("norm").momentum == 0.99


def test_what_does_not_fit_ends_in_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(RecipeError, match="plain has no backbone that could be frozen"):
        require_network(but(frozen=Frozen(epochs=1, rate=0.1)), PLAIN)
    with pytest.raises(WeightsError, match="tiny has no backbone VGG19; it has Tiny"):
        require_network(but(weights={"VGG19": "imagenet"}), TINY)
    with pytest.raises(WeightsError, match=r"There is no file of weights at /nowhere\.h5"):
        require_network(but(weights={"Tiny": "/nowhere.h5"}), TINY)
    tiny_training(tmp_path / "a", but(epochs=1), say=silent)
    with pytest.raises(RecipeError, match="holds the checkpoint of another network"):
        tiny_training(tmp_path / "a", but(epochs=2), PLAIN, silent)
    (tmp_path / "a" / NAME).write_bytes(b"PK")
    with pytest.raises(RecipeError, match="is damaged"):
        tiny_training(tmp_path / "a", but(epochs=2), say=silent)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(RecipeError, match="each machine needs TF_CONFIG"):
        make_strategy("multiworker")
