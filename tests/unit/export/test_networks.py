from __future__ import annotations

import numpy as np
import pytest

from edge.classify import Classifier
from edge.preprocess import INPUT_SIDE, preprocess
from export.legacy_keras import keras
from export.model import float_logits, int8_logits
from export.networks.ours import Plan, build, lean_against
from export.networks.p3 import PARAMETERS, build_p3
from export.phantom import phantom
from export.prune import prunable
from export.quantize import INPUT_SCALE, INPUT_ZERO_POINT, input_quantization, quantize
from export.train import settle_statistics

PICTURES = np.stack([preprocess(phantom(seed, width=256, height=256)) for seed in range(4)])
CALIBRATION = PICTURES // 2 + 20


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    return build(3, INPUT_SIDE)


@pytest.fixture(scope="module")
def graph(network):
    # No picture here holds all of 0..255: the export itself has to see to the input's range.
    return quantize(network, CALIBRATION)


def test_p3_has_the_published_parameters_layer_by_layer():
    model = build_p3()
    counts = [layer.count_params() for layer in model.layers if layer.count_params()]
    assert counts == [896, 128, 18496, 256, 73856, 512, 73792, 256, 18464, 128, 262656, 2048, 1539]
    assert sum(counts) == model.count_params() == PARAMETERS == 453_027
    assert [layer.output_shape[1] for layer in model.layers if "max_pooling" in layer.name] == [99, 48, 23, 10, 4]


def test_ours_has_scores_and_maps_of_a_sixteenth_of_the_side(network):
    assert {name: tuple(output.shape) for name, output in network.output.items()} == {
        "scores": (None, 3),
        "heat": (None, 12, 12, 3),
    }
    assert 190_000 <= network.count_params() <= PARAMETERS


def test_channels_are_multiples_of_16():
    plan = Plan()
    assert all(channels % 16 == 0 for channels in (*plan.stem, *(channels for channels, _ in plan.blocks)))


def test_the_mean_of_a_map_is_its_logit_in_float_and_int8(network, graph):
    out = network(PICTURES[..., np.newaxis].astype(np.float32) / 255)
    assert np.allclose(np.mean(out["heat"], axis=(1, 2)), out["scores"], atol=1e-5)
    scores = Classifier(graph).run(PICTURES[0])
    assert scores.heat.shape == (12, 12, 3)
    spread = float(np.ptp(scores.heat))
    assert np.allclose(scores.heat.mean(axis=(0, 1)), scores.logits, atol=0.05 * spread + 0.01)


def test_the_int8_input_is_pixel_minus_128(graph):
    scale, zero_point = input_quantization(graph)
    assert np.float32(scale) == np.float32(INPUT_SCALE)
    assert zero_point == INPUT_ZERO_POINT == -128


def test_normalization_folds_into_the_convolutions(graph):
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = Interpreter(model_content=graph, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    names = {operation["op_name"] for operation in plain._get_ops_details()}
    assert names <= {"CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "MEAN"}


def test_int8_follows_float(network, graph):
    float_, int8 = float_logits(network, CALIBRATION), int8_logits(graph, CALIBRATION)
    assert np.abs(float_ - int8).max() < 0.1 * max(np.abs(float_).max(), 0.1)


def test_only_1x1_convolutions_are_pruned_and_the_last_one_is_not(network):
    names = {layer.name for layer in network.layers if prunable(layer)}
    assert "heat" not in names
    assert all("point" in name or "around" in name for name in names)
    assert len(names) == 2 * len(Plan().blocks) + 1


def test_a_bias_moves_the_logits_and_nothing_else():
    model = build(3, INPUT_SIDE)
    before = float_logits(model, PICTURES)
    lean_against(model, np.array([0.5, -0.25, -0.25]))
    assert float_logits(model, PICTURES) - before == pytest.approx(np.tile([0.5, -0.25, -0.25], (len(PICTURES), 1)), abs=1e-5)


def test_settled_statistics_are_those_of_the_pictures():
    model = build(3, None)
    settle_statistics(model, np.repeat(PICTURES, 8, axis=0), np.random.default_rng(0), passes=60)
    norm = next(layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization))
    convolution = keras.Model(model.input, norm.input)(np.repeat(PICTURES, 8, axis=0).astype(np.float32)[..., np.newaxis] / 255.0)
    assert norm.get_weights()[2] == pytest.approx(
        np.mean(convolution, axis=(0, 1, 2)), rel=0.06, abs=1e-3
    )  # 0.95 ** 60 of the start is left
    assert norm.momentum == 0.9
