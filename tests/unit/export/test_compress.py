"""Pruning, quantizing, folding and thinning, on networks and pictures that take no time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.compress.centring import centred, centred_if_possible
from export.compress.equalizing import equalized
from export.compress.folding import folded
from export.compress.formats import PRECISIONS, Runner, convert, keras_logits
from export.compress.pruning import pruned, zero_share
from export.compress.quantization_aware import quantization_aware
from export.compress.ranges import best_range, close_int8
from export.compress.rebuild import duplicate
from export.compress.representative import representative_by_patient
from export.compress.rounding import on_grid, rounded
from export.compress.thinning import thinned
from export.compress.timing import interleaved, peak_memory
from export.dataset import Sample
from export.errors import ConversionError
from export.legacy_keras import keras
from tests.unit.export.small_network import build

SIDE = 32
layers = keras.layers


@pytest.fixture(autouse=True)
def fresh_session():
    keras.backend.clear_session()
    keras.utils.set_random_seed(4)


def pictures(count=16, channels=1):
    """Some bright, some dark, each with a few blotches, so that a network says different things about them."""
    rng = np.random.default_rng(5)
    blotches = np.kron(rng.integers(0, 128, (count, 4, 4)), np.ones((1, SIDE // 4, SIDE // 4)))
    bright = rng.integers(0, 112, (count, 1, 1)) + rng.integers(0, 16, (count, SIDE, SIDE))
    return np.repeat((blotches + bright).astype(np.uint8)[..., np.newaxis], channels, axis=3)


def unsettled(model):
    """Gives normalization statistics that are not those of the start, so that folding has something to do."""
    rng = np.random.default_rng(6)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, value.shape) for value in layer.get_weights()])
    return model


def residual():
    return unsettled(build(3, SIDE))


def chain():
    """P3's order: convolution, ReLU, and only then normalization; also of a vector."""
    made = keras.Sequential([keras.Input((SIDE, SIDE, 3))], name="chain")
    made.add(layers.Rescaling(2.0, -1.0))
    for filters in (32, 16):
        made.add(layers.Conv2D(filters, 3, activation="relu"))
        made.add(layers.BatchNormalization())
        made.add(layers.MaxPooling2D(2))
    made.add(layers.Flatten())
    made.add(layers.Dense(32, activation="relu"))
    made.add(layers.BatchNormalization())
    made.add(layers.Dropout(0.2))
    made.add(layers.Dense(3))
    return unsettled(made)


def no_training(trainee, callbacks):
    assert trainee.output_shape == (None, 3)
    assert not callbacks


def train(trainee, callbacks):
    """Four steps."""
    given = pictures(16, trainee.input_shape[-1]) / np.float32(255)
    trainee.compile(keras.optimizers.Adam(1e-3), "mse")
    trainee.fit(given, np.eye(3)[np.arange(16) % 3], batch_size=4, epochs=1, verbose=0, callbacks=list(callbacks))


@pytest.mark.parametrize("make", [residual, chain])
def test_a_folded_network_says_the_same_without_normalization(make):
    model = make()
    given = pictures(4, model.input_shape[-1])
    plain = folded(model)
    assert not any(isinstance(layer, (layers.BatchNormalization, layers.Rescaling)) for layer in plain.layers)
    np.testing.assert_allclose(keras_logits(plain, given), keras_logits(model, given), atol=2e-4)
    if isinstance(model.output, dict):
        assert set(plain.output) == {"scores", "heat"}


def test_a_duplicate_has_weights_of_its_own():
    model = residual()
    copy = duplicate(model)
    before = keras_logits(model, pictures(2))
    np.testing.assert_array_equal(keras_logits(copy, pictures(2)), before)
    copy.get_layer("heat").set_weights([value + 1 for value in copy.get_layer("heat").get_weights()])
    np.testing.assert_array_equal(keras_logits(model, pictures(2)), before)
    assert np.abs(keras_logits(copy, pictures(2)) - before).min() > 0.5


@pytest.mark.soak
def test_files_of_every_precision_say_nearly_the_same():
    model = residual()
    expected = keras_logits(model, pictures())
    for precision in PRECISIONS:
        graph = convert(model, precision, pictures())
        runner = Runner(graph)
        near = {"float32": 1e-5, "float16": 2e-3}.get(precision, 0.05)
        assert np.abs(runner.logits(pictures()) - expected).max() < near * np.abs(expected).max()
        assert bool(runner.floats()) == (precision != "int8")
        assert (runner.output_step > 0) == (precision == "int8")
    with pytest.raises(ConversionError, match="fixed size"):
        convert(build(3, None), "int8", pictures())


@pytest.mark.parametrize("sparsity", [0.5, pytest.param(0.8, marks=pytest.mark.soak)])
def test_pruning_reaches_its_sparsity_and_leaves_the_network_it_was_given(sparsity):
    model = residual()
    before = [value.copy() for value in model.get_weights()]
    made = pruned(model, sparsity, train, steps=4)
    assert zero_share(made, "pointwise") == pytest.approx(sparsity, abs=0.01)
    assert zero_share(model, "pointwise") == 0.0
    assert np.count_nonzero(made.get_layer("heat").get_weights()[0] == 0) == 0
    assert np.count_nonzero(made.get_layer("stem0").get_weights()[0] == 0) == 0
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_all_kernels_can_be_pruned_and_some_kept():
    made = pruned(chain(), 0.5, train, steps=4, kernels="all", keep=["dense"])
    zeros = {layer.name: float((layer.get_weights()[0] == 0).mean()) for layer in made.layers if "conv" in layer.name}
    assert list(zeros.values()) == pytest.approx([0.5, 0.5], abs=0.01)
    assert not (made.get_layer("dense").get_weights()[0] == 0).any()


def test_a_fine_tuning_that_is_too_short_is_named():
    with pytest.raises(ConversionError, match="did not make the 400 steps"):
        pruned(chain(), 0.5, train, steps=400)
    with pytest.raises(ConversionError, match="no layer whose pointwise kernels"):
        pruned(
            keras.Sequential([keras.Input((4, 4, 1)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(3)]), 0.5, train, steps=4
        )


def test_aware_training_measures_its_ranges_and_gives_int8_throughout():
    model = residual()
    untrained = quantization_aware(model, pictures(), no_training)
    expected = keras_logits(model, pictures())
    found = Runner(untrained.graph)
    assert untrained.left_in_float == ()
    assert found.floats() == []
    # The ranges were measured: without, they would be those of the start, and this ten times as much.
    assert np.abs(found.logits(pictures()) - expected).mean() < 0.02 * np.abs(expected).max()


@pytest.mark.parametrize("keep", [True, pytest.param(False, marks=pytest.mark.soak)])
def test_aware_training_keeps_zeros(keep):
    model = residual()
    kernel = model.get_layer("block0_second_point").get_weights()[0]
    model.get_layer("block0_second_point").set_weights([np.where(np.abs(kernel) < np.median(np.abs(kernel)), 0, kernel)])
    made = Runner(quantization_aware(model, pictures(), train, keep_zeros=keep).graph)
    assert (_zeros(made, (16, 1, 1, 16)) == pytest.approx(0.5, abs=0.01)) == keep
    assert _input(made) == (np.float32(1 / 255), -128)


@pytest.mark.soak
def test_aware_training_takes_the_order_of_p3():
    made = quantization_aware(chain(), pictures(16, 3), no_training)
    assert made.left_in_float == ()


def _zeros(runner, shape):
    found = [d for d in runner._interpreter.get_tensor_details() if tuple(d["shape"]) == shape and d["dtype"] == np.int8]
    return max(float((runner._interpreter.get_tensor(d["index"]) == 0).mean()) for d in found)


def _input(runner):
    scale, zero_point = runner._input["quantization"]
    return np.float32(scale), zero_point


def test_balanced_rounding_is_nearer_to_the_float_network_than_the_nearest_steps():
    rng = np.random.default_rng(1)
    inputs = np.abs(rng.normal(1.0, 0.3, (500, 24))) @ rng.uniform(0, 1, (24, 24))  # positive and alike, as after a ReLU
    kernel = rng.normal(0, 1, (24, 6))
    kernel[::5] = 0
    moments = inputs.T @ inputs / len(inputs)
    near, better = on_grid(kernel, None), on_grid(kernel, moments)
    errors = [np.abs(inputs @ (made - kernel)).mean() for made in (near, better)]
    assert errors[1] < errors[0] / 2
    step = np.abs(kernel).max(axis=0) / 127
    np.testing.assert_allclose(better / step, np.rint(better / step), atol=1e-9)
    assert np.abs(better).max(axis=0) == pytest.approx(np.abs(kernel).max(axis=0))
    assert not better[::5].any()


@pytest.mark.parametrize("make", [residual, chain])
def test_a_balanced_network_is_on_the_grid_and_keeps_its_means(make):
    model = make()
    given = pictures(16, model.input_shape[-1])
    better = rounded(model, given)
    expected = keras_logits(model, given)
    # What the converter rounds to the nearest of the balanced weights are the balanced weights.
    again = rounded(better, given)
    for layer in better.layers:
        if layer.weights:
            np.testing.assert_allclose(again.get_layer(layer.name).get_weights()[0], layer.get_weights()[0], atol=1e-5)
    assert np.abs((keras_logits(better, given) - expected).mean(axis=0)).max() < 0.01 * np.ptp(expected)


def test_an_equalized_network_says_the_same_and_uses_its_range():
    model = equalizable()
    given = pictures(16)
    made = equalized(model, given)
    np.testing.assert_allclose(made(given / np.float32(255)), model(given / np.float32(255)), atol=1e-4)
    for name in ("first_relu", "second_relu"):
        tops = np.max(keras.Model(made.input, made.get_layer(name).output)(given / np.float32(255)), axis=(0, 1, 2))
        assert tops[[0, 1, 4]] == pytest.approx(6, abs=1e-3)
        assert (tops[[2, 3, 5]] > 3).all()  # stretched as far as is allowed
    plain, better = (Runner(convert(network, "int8", given)).logits(given) for network in (model, made))
    expected = keras_logits(model, given)
    assert np.abs(better - expected).mean() < 0.3 * np.abs(plain - expected).mean()


def test_channels_that_nothing_trained_reads_are_stretched_too():
    model, given = equalizable(), pictures(16)
    both = [model.get_layer(name).output for name in ("first_relu", "second_relu")]
    gathering = keras.Model(model.input, {"said": model.output, "gathered": layers.Concatenate(name="gathered")(both)})
    found = gathering(given / np.float32(255))
    held, freed = (equalized(gathering, given, free=free)(given / np.float32(255)) for free in (None, "gathered"))
    np.testing.assert_allclose(held["gathered"], found["gathered"], atol=1e-5)
    tops = np.max(freed["gathered"], axis=(0, 1, 2))
    assert tops[[0, 1, 4, 6, 7, 10]] == pytest.approx(6, abs=1e-3)
    assert np.max(found["gathered"], axis=(0, 1, 2)).min() < 1
    np.testing.assert_allclose(freed["said"], found["said"], atol=1e-4)  # what reads them and is trained has been told


def equalizable():
    given = keras.Input((SIDE, SIDE, 1))
    flow = layers.ReLU(6.0, name="first_relu")(layers.Conv2D(6, 3, padding="same", name="first")(given))
    flow = layers.ReLU(6.0, name="second_relu")(layers.DepthwiseConv2D(3, padding="same", name="second")(flow))
    made = keras.Model(given, layers.GlobalAveragePooling2D()(layers.Conv2D(3, 1, name="third")(flow)))
    for name, times in (("first", 1 / 20), ("second", 1.0)):
        kernel, bias = made.get_layer(name).get_weights()
        spread = np.array([1, 1, times, times, 1, times]).reshape(kernel.shape[-1] if name == "first" else (6, 1))
        made.get_layer(name).set_weights([np.abs(kernel) * spread, bias])
    kernel, bias = made.get_layer("third").get_weights()
    kernel[:, :, [2, 3, 5]] *= 20
    made.get_layer("third").set_weights([kernel, bias])
    return made


def test_a_depthwise_kernel_is_balanced_too():
    """Each of its channels keeps its mean although every weight but the largest is moved."""
    given = pictures(16)
    start = keras.Input((SIDE, SIDE, 1))
    flow = layers.DepthwiseConv2D(5, padding="same", depth_multiplier=4, name="deep", bias_initializer="ones")(start)
    model = keras.Model(start, layers.GlobalAveragePooling2D()(flow))
    better = rounded(model, given)
    kernel = better.get_layer("deep").get_weights()[0]
    steps = kernel / np.abs(kernel).max(axis=(0, 1), keepdims=True) * 127
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
    np.testing.assert_allclose(keras_logits(better, given).mean(axis=0), keras_logits(model, given).mean(axis=0), atol=1e-4)


def test_a_close_file_is_closer_than_a_plain_one():
    """On the pictures that it was made with and on others."""
    model = residual()
    for name in ("block0_second_point", "heat"):
        kernel, *bias = model.get_layer(name).get_weights()
        kernel[:, :, 0] *= 20  # the steps of the others become coarse
        model.get_layer(name).set_weights([kernel, *bias])
    given = pictures(32)
    close, plain = Runner(close_int8(model, given[:16])), Runner(convert(model, "int8", given[:16]))
    expected = keras_logits(model, given)
    errors = [np.abs(runner.logits(given) - expected).mean() for runner in (close, plain)]
    assert errors[0] < 0.8 * errors[1]
    assert close.floats() == []
    assert _input(close) == (np.float32(1 / 255), -128)


@pytest.mark.parametrize("make", [residual, chain])
def test_centred_logits_say_the_same_around_zero(make):
    model = make()
    given = pictures(4, model.input_shape[-1])
    before, after = keras_logits(model, given), keras_logits(centred(model), given)
    np.testing.assert_allclose(after, before - before.mean(axis=1, keepdims=True), atol=1e-4)
    if isinstance(model.output, dict):
        np.testing.assert_allclose(np.mean(centred(model)(given / np.float32(255))["heat"], axis=-1), 0, atol=1e-5)


def test_logits_that_several_layers_make_are_not_centred():
    image = keras.Input((4, 4, 1))
    flow = layers.Flatten()(image)
    model = keras.Model(image, layers.Add()([layers.Dense(3)(flow), layers.Dense(3)(flow)]))
    with pytest.raises(ConversionError, match="come out of a Add"):
        centred(model)
    assert centred_if_possible(model) is model


def test_a_range_leaves_out_what_is_rare_and_far_away():
    values = np.concatenate([np.random.default_rng(0).normal(0, 1, 100_000), [9.0]]).astype(np.float32).clip(0)
    low, high = best_range(values)
    assert low == 0.0
    assert 3 < high < 8.9
    flat = np.linspace(-1, 3, 10_001, dtype=np.float32)
    assert best_range(flat) == pytest.approx((-1, 3))
    assert best_range(np.zeros(3, np.float32)) == (0.0, 0.0)


def test_thinning_removes_whole_channels_and_keeps_the_strongest():
    model = chain()
    kernel, bias = model.get_layer("conv2d").get_weights()
    kernel[..., ::2] *= 1e-6  # every second channel does nothing
    bias[::2] = 0
    model.get_layer("conv2d").set_weights([kernel, bias])
    norm = model.get_layer("batch_normalization")
    gamma, beta, mean, variance = norm.get_weights()
    beta[::2] = mean[::2] = 0
    norm.set_weights([gamma, beta, mean, variance])
    made = thinned(model, 0.5)
    assert [layer.get_weights()[0].shape[-1] for layer in made.layers if layer.name.startswith(("conv", "dense"))] == [
        16,
        16,
        16,
        3,
    ]
    only_first = thinned(model, 0.5, multiple=16)
    np.testing.assert_allclose(only_first.get_layer("conv2d").get_weights()[0], kernel[..., 1::2])
    # Nothing but the first layer loses channels when the others are as small as they may get.
    same = thinned(model, 0.5, multiple=32)
    np.testing.assert_allclose(keras_logits(same, pictures(2, 3)), keras_logits(model, pictures(2, 3)), atol=1e-4)


def test_a_network_that_is_no_chain_cannot_be_thinned():
    with pytest.raises(ConversionError, match="not one chain of layers"):
        thinned(residual(), 0.5)


def sample(patient, label, source="a"):
    return Sample(Path(f"{patient}.png"), label, patient, source, "set")


def test_representative_pictures_are_of_different_patients_and_of_all_groups():
    samples = [sample(f"n{i // 4}", "normal") for i in range(80)]
    samples += [sample(f"c{i}", "covid19", "b") for i in range(3)]
    samples += [sample(f"c{i}", "pneumonia", "b") for i in range(2, 12)]
    chosen = [samples[i] for i in representative_by_patient(samples, 15, seed=3)]
    assert len(chosen) == 15
    assert len({one.patient for one in chosen}) == 15
    counts = [sum(one.label == label for one in chosen) for label in ("normal", "pneumonia", "covid19")]
    assert counts[2] in (2, 3)  # c2 may have been taken as a pneumonia
    assert max(counts[:2]) - min(counts[:2]) <= 1
    everyone = representative_by_patient(samples, 1000, seed=3)
    assert len(everyone) == len({one.patient for one in samples})
    assert list(representative_by_patient(samples, 15, seed=3)) == list(representative_by_patient(samples, 15, seed=3))
    assert list(representative_by_patient(samples, 15, seed=3)) != list(representative_by_patient(samples, 15, seed=4))


def test_times_are_taken_in_turns_and_memory_in_a_process_of_its_own():
    order = []

    class Fake:
        def __init__(self, name):
            self.name = name

        def give(self, picture):
            order.append(f"given {self.name}")

        def invoke(self):
            order.append(self.name)

    found = interleaved({"a": Fake("a"), "b": Fake("b")}, {"a": None, "b": None}, rounds=10)
    assert set(found) == {"a", "b"}
    turns = order[-20:]
    assert all({turns[i], turns[i + 1]} == {"a", "b"} for i in range(0, 20, 2))
    graph = convert(residual(), "int8", pictures())
    assert 10_000 < peak_memory(graph) < 50e6
