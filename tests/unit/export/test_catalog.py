"""Every network of the publications: its size to the digit, its training, its int8 file."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from export.cli import main
from export.errors import ExportError, WeightsError
from export.legacy_keras import keras
from export.networks.borrowed import LearnedRatio
from export.networks.catalog import CATALOG, find, multiply_adds
from export.networks.from_scratch import DARKCOVIDNET_PARAMETERS, darkcovidnet
from export.networks.heads import HEAD, freeze
from export.trial import try_network

SIDE = 64
SMALL_SIDE = {"p3": 96, "p1-alexnet": 96, "darkcovidnet": SIDE}
LONG_CONVERSION = ("darkcovidnet", "mobilenet-v2-0.35", "mobilenet-v2-1.0", "p4-covidnet")
"""Small networks of many layers: the converter takes 10 to 20 s for one, whatever its side. That they learn is seen without it."""
SLOW = [network for network in CATALOG if network.large or network.name in LONG_CONVERSION]
QUICK = [network for network in CATALOG if network not in SLOW]

KNOWN = {
    # Parameters with three classes; multiply-adds of one picture.
    "p3": (453_027, 0.397),
    "p1-resnet50": (23_593_859, 3.856),
    "mobilenet-v2-0.35": (414_051, 0.058),
    "mobilenet-v2-1.0": (2_261_827, 0.300),
}


def pictures(count, side):
    """Two kinds that a network tells apart after a few steps: bright above, bright below."""
    rng = np.random.default_rng(3)
    kinds = rng.integers(0, 2, count)
    ramp = np.linspace(0, 200, side)[np.newaxis, :, np.newaxis]
    bright = np.where(kinds[:, np.newaxis, np.newaxis] == 0, ramp, ramp[:, ::-1])
    return (bright + rng.integers(0, 56, (count, side, side))).astype(np.uint8), kinds


@pytest.fixture(autouse=True)
def fresh_session():
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)


@pytest.mark.parametrize("name", KNOWN)
def test_a_network_has_the_parameters_and_the_work_that_are_known(name):
    model = find(name).build(3)
    parameters, giga = KNOWN[name]
    assert model.count_params() == parameters
    assert multiply_adds(model) / 1e9 == pytest.approx(giga, rel=0.005)
    assert model.output_shape == (None, 3)


def test_darkcovidnet_is_the_published_one():
    model = darkcovidnet(2)
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert trainable == DARKCOVIDNET_PARAMETERS
    sizes = [layer.output_shape[1] for layer in model.layers if layer.name.endswith(("_leak", "maps_relu"))]
    assert sizes == [256, 128, 64, 66, 66, 33, 35, 35, 17, 19, 19, 9, 11, 11, 13, 13, 13]


@pytest.mark.parametrize("network", QUICK, ids=lambda network: network.name)
def test_a_network_trains_and_its_int8_file_agrees_with_it(network):
    trains_and_agrees(network)


@pytest.mark.soak
@pytest.mark.parametrize("network", SLOW, ids=lambda network: network.name)
def test_a_large_network_trains_and_its_int8_file_agrees_with_it(network):
    trains_and_agrees(network)


def trains_and_agrees(network):
    given, kinds = pictures(48, SMALL_SIDE.get(network.name, SIDE))
    trial = try_network(network, given, kinds, classes=2, steps=12, rate=1e-3)
    assert trial.last_loss < trial.first_loss
    assert trial.mean_difference < 0.1
    assert trial.decided >= trial.pictures // 4
    assert trial.agreed == trial.decided
    assert trial.int8_bytes < 1.3 * trial.parameters + 200_000
    assert trial.int8_ms > 0


@pytest.mark.parametrize("name", ["darkcovidnet", "p4-covidnet"])
def test_a_network_of_many_layers_learns(name):
    network = find(name)
    model = network.build(2, side=SIDE)
    given, kinds = pictures(16, SIDE)
    given = np.repeat(given[..., np.newaxis], network.channels, axis=3) / np.float32(255)
    model.compile(keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    losses = [float(model.train_on_batch(given, kinds)) for _ in range(6)]
    assert losses[-1] < 0.8 * losses[0]


def test_a_frozen_backbone_stands_still_and_its_head_learns():
    network = find("mobilenet-v2-0.35")
    model = network.build(2, side=SIDE)
    freeze(model)
    given, kinds = pictures(16, SIDE)
    given = np.repeat(given[..., np.newaxis], network.channels, axis=3)
    before = {layer.name: layer.get_weights() for layer in model.layers if layer.weights}
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(given / np.float32(255), kinds, epochs=1, verbose=0)
    after = {name: model.get_layer(name).get_weights() for name in before}
    changed = {name for name, old in before.items() if any((a != b).any() for a, b in zip(old, after[name], strict=True))}
    assert changed == {f"{HEAD}scores"}
    freeze(model, frozen=False)
    assert all(layer.trainable for layer in model.layers)


def test_the_ratio_of_the_fusion_is_learned():
    first, second = keras.Input((1,)), keras.Input((1,))
    mix = LearnedRatio()
    model = keras.Model([first, second], mix([first, second]))
    assert mix.ratio() == 0.5
    model.compile(keras.optimizers.Adam(0.2), "mse")
    wanted = np.full((64, 1), 2.0)
    model.fit([wanted, -wanted], wanted, epochs=40, verbose=0)
    assert mix.ratio() > 0.9


def test_weights_of_another_network_are_refused_with_a_sentence(tmp_path):
    other = tmp_path / "other.h5"
    find("mobilenet-v2-1.0").build(3, side=SIDE).save_weights(other)
    with pytest.raises(WeightsError, match="does not hold weights of MobileNetV2 without its top"):
        find("mobilenet-v2-0.35").build(3, {"MobileNetV2": other})
    other.write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="does not hold weights"):
        find("mobilenet-v2-0.35").build(3, {"MobileNetV2": other})
    with pytest.raises(WeightsError, match="There is no file of weights at"):
        find("p1-resnet50").build(3, {"ResNet50": tmp_path / "gone.h5"})
    with pytest.raises(WeightsError, match="has no backbone ResNet50; it has MobileNetV2"):
        find("mobilenet-v2-0.35").build(3, {"ResNet50": other})


def test_an_unknown_network_is_named():
    with pytest.raises(ExportError, match="There is no network 'p6'"):
        find("p6")


def test_the_command_lists_them(monkeypatch):
    monkeypatch.setattr("export.networks.catalog.CATALOG", (find("p3"), find("mobilenet-v2-0.35")))
    lines = CliRunner().invoke(main, ["networks"]).output.splitlines()
    assert len(lines) == 3
    assert "453,027" in lines[1]
    assert lines[2].endswith("MobileNetV2")
