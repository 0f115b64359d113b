"""The float network out of an int8 graph, and its reader trained further without losing what it knew."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from edge.network.bundle import SHIPPED, load_bundle
from edge.pixels.preprocess import preprocess
from export import fine_tune as tuning
from export.adapt import adapt
from export.compress.formats import convert
from export.errors import WeightsError
from export.fine_tune import strongest, with_classes
from export.legacy_keras import keras
from export.model import float_logits, run
from export.networks import ours
from export.networks.ours import assemble, eyes
from export.phantom import phantom, random_opacities
from export.reopen import constants, reopened
from export.train import Lesson, Recipe, Start, as_reader, find_signs, look, lungs_of
from export.views import Views
from tests.unit.export.test_adapt import contents, hospital

layers = keras.layers


@pytest.fixture(scope="module")
def graph():
    return (SHIPPED / "model.tflite").read_bytes()


@pytest.fixture(scope="module", autouse=True)
def _eyes_once():
    """Building them is most of the time; nobody changes them."""
    patch = pytest.MonkeyPatch()
    patch.setattr("export.reopen.eyes", functools.cache(eyes))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def parts(graph):
    manifest = load_bundle().manifest
    return reopened(graph, len(manifest.classes), manifest.input_side)


def test_the_constants_of_a_graph_are_the_weights_that_were_converted():
    keras.utils.set_random_seed(0)
    flow = picture = keras.Input((16, 16, 1))
    flow = layers.ReLU(6.0)(layers.Conv2D(8, 3, strides=2, name="first", bias_initializer="normal")(picture))
    flow = layers.ReLU(6.0)(layers.DepthwiseConv2D(3, name="wide", bias_initializer="normal")(flow))
    flow = layers.Conv2D(3, 1, name="signs", bias_initializer="normal")(flow)
    model = keras.Model(picture, layers.GlobalAveragePooling2D(name="scores")(flow), name="tiny")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 1)).astype(np.uint8)
    found = constants(convert(model, "int8", pixels))
    assert set(found) == {"first", "wide", "signs"}
    for name, (kernel, bias) in found.items():
        old_kernel, old_bias = model.get_layer(name).get_weights()
        assert kernel.shape == old_kernel.shape
        # Half a step of the largest weight, of each output.
        assert np.abs(kernel - old_kernel).max() <= np.abs(old_kernel).max() / 127 / 2 * 1.01
        assert bias == pytest.approx(old_bias, abs=1e-3)


def test_the_reopened_network_agrees_with_its_graph(graph, parts):
    pixels = np.stack([preprocess(phantom(seed, opacity=random_opacities(seed, seed % 9))) for seed in range(12)])
    floats, fixed = float_logits(assemble(*parts), pixels), run(graph, pixels).logits
    assert np.abs(floats - fixed).mean() < 0.1 * np.ptp(fixed)
    assert np.corrcoef(floats.ravel(), fixed.ravel())[0, 1] > 0.95


def test_a_graph_of_another_network_can_only_be_recalibrated(graph):
    with pytest.raises(WeightsError, match=r"not the one that this software trains .* can only be recalibrated"):
        reopened(graph, 4, load_bundle().manifest.input_side)


def test_a_graph_that_takes_its_traits_elsewhere_is_not_ours(graph, monkeypatch):
    """The layers are the same, only the third output is of another one."""
    bundle = load_bundle()
    monkeypatch.setattr(ours, "TRAITS_BLOCK", 5)
    monkeypatch.setattr("export.reopen.eyes", ours.eyes)
    with pytest.raises(WeightsError, match="tells what is familiar by other features"):
        reopened(graph, len(bundle.manifest.classes), bundle.manifest.input_side)


def test_a_graph_with_more_layers_than_ours_is_not_ours(graph, monkeypatch):
    more = {**constants(graph), "another": (np.zeros((1, 1, 1, 1), np.float32), np.zeros(1, np.float32))}
    monkeypatch.setattr("export.reopen.constants", lambda _: more)
    with pytest.raises(WeightsError, match="has a layer another more"):
        reopened(graph, 3, load_bundle().manifest.input_side)


def test_a_reader_of_fewer_classes_answers_as_before_among_them(parts):
    _, whole = parts
    some = with_classes(whole, [2, 0])
    features = np.random.default_rng(0).uniform(0, 6, (2, *whole.input_shape[1:])).astype(np.float32)
    old, new = (np.asarray(model(features)["scores"]) for model in (whole, some))
    assert new[:, 0] - new[:, 1] == pytest.approx(old[:, 2] - old[:, 0], abs=1e-4)
    assert np.asarray(some(features)["lungs"]) == pytest.approx(np.asarray(whole(features)["lungs"]))


def test_the_strongest_pull_that_is_no_worse_by_more_than_chance_is_taken():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=400)
    noise -= noise.mean()
    losses = {1.0: 1 + 0 * noise, 10.0: 1.01 + noise, 100.0: 2 + noise, np.inf: 3 + noise}
    assert strongest(losses) == 10.0
    assert strongest({1.0: 2 + 0.1 * noise, np.inf: 1 + 0.1 * noise}) == np.inf


def test_a_strong_pull_keeps_the_weights_and_a_weak_one_learns(parts):
    _, whole = parts
    rows, channels = whole.input_shape[1], whole.input_shape[3]
    rng = np.random.default_rng(0)
    label = np.arange(24) % 3
    features = rng.uniform(0, 2, (1, 24, rows, rows, channels)).astype(np.float16)
    for picture in range(24):
        features[0, picture, :, :, label[picture]] += 3
    nothing = np.zeros((1, 24, rows, rows), np.float16)
    views = Views(features, features, nothing, features[0])
    lesson = Lesson(views, np.eye(3, dtype=np.float32)[label], np.zeros(24, bool), np.zeros(24, int), np.arange(24))
    recipe = Recipe(views=1, plain=1, emptied=0)
    plain = features[0].astype(np.float32)
    before = np.asarray(whole(plain)["scores"])
    pooled = look(lesson, lungs_of(whole))

    def trained(start):
        return as_reader(lungs_of(whole), find_signs(pooled, recipe, start), rows)

    held, free = (np.asarray(trained(Start(whole, pull))(plain)["scores"]) for pull in (1e9, 0.1))
    centred = before - before.mean(axis=1, keepdims=True)
    assert held - held.mean(axis=1, keepdims=True) == pytest.approx(centred, abs=0.15 * float(np.ptp(centred)))
    assert _loss(free, label) < 0.5 * _loss(before, label)


def _loss(scores, label):
    logs = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    return -logs[np.arange(len(label)), label].mean()


@pytest.mark.soak
def test_a_fine_tuned_bundle_is_the_same_to_the_byte_and_has_only_classes_with_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "RECIPE", Recipe(views=2))
    monkeypatch.setattr(tuning.fine_tune, "__kwdefaults__", {"recipe": tuning.RECIPE, "pulls": (1.0,)})
    folder = hospital(tmp_path / "st-drawn", ("normal", "pneumonia"), people=16)
    said: list[str] = []
    for name in ("one", "two"):
        adapt(SHIPPED, folder, tmp_path / name, mode="fine-tune", without=["covid19"], fewest=3, say=said.append)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    bundle = load_bundle(tmp_path / "one")
    assert bundle.manifest.classes == ["normal", "pneumonia"]
    assert "+fine-tuned." in bundle.manifest.version
    assert "no longer says covid19" in bundle.manifest.intended_use
    assert bundle.decide(preprocess(phantom(1))).probabilities.keys() == {"normal", "pneumonia"}
    assert any(line.startswith("training: ") for line in said)
    assert "trained further" in (tmp_path / "one/LICENSE").read_text()
    strange = load_bundle().typicality
    assert not np.array_equal(strange.mean, bundle.typicality.mean)
