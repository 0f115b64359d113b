from __future__ import annotations

import numpy as np
import pytest

from edge.network.classify import Classifier
from edge.pixels.preprocess import INPUT_SIDE, preprocess
from export.errors import WeightsError
from export.legacy_keras import keras
from export.model import float_logits, run
from export.networks import ours
from export.networks.ours import build, reader
from export.networks.p3 import PARAMETERS, build_p3
from export.phantom import phantom
from export.quantize import INPUT_SCALE, INPUT_ZERO_POINT, input_quantization, quantize

PICTURES = np.stack([preprocess(phantom(seed, width=256, height=256)) for seed in range(4)])
CALIBRATION = PICTURES // 2 + 20


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Stands for the file that Keras publishes: of the same network, with random weights."""
    keras.utils.set_random_seed(1)
    made = keras.applications.MobileNetV2((96, 96, 3), alpha=0.35, include_top=False, weights=None)
    rng = np.random.default_rng(0)
    for layer in made.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # As they are made, mean 0 and variance 1 would hide a fold that forgets them.
            gamma, beta, mean, variance = layer.get_weights()
            scattered = [rng.uniform(0.5, 1.5, gamma.shape), rng.normal(0, 0.2, beta.shape)]
            layer.set_weights([*scattered, rng.normal(0, 0.2, mean.shape), rng.uniform(0.5, 1.5, variance.shape)])
    file = tmp_path_factory.mktemp("weights") / "eyes.weights.h5"
    made.save_weights(file)
    return made, file


@pytest.fixture(scope="module")
def network(published):
    keras.utils.set_random_seed(0)
    return build(3, INPUT_SIDE, published[1])


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


def test_ours_has_scores_maps_of_a_sixteenth_of_the_side_and_traits(network):
    assert {name: tuple(output.shape) for name, output in network.output.items()} == {
        "scores": (None, 3),
        "heat": (None, 12, 12, 3),
        "traits": (None, 96),
    }
    assert network.count_params() == 90_772


def test_the_eyes_are_those_of_the_publication(published):
    """They see as MobileNetV2 with batch normalization and three channels of 2 x - 1 does, but for the outermost edge."""
    plain, file = published
    seen = ours.eyes(96, file)
    picture = PICTURES[:2, 40:136, 40:136].astype(np.float32)[..., np.newaxis] / 255
    middle = keras.Model(plain.input, plain.get_layer("block_1_expand_relu").output)
    expected = middle(np.repeat(2 * picture - 1, 3, axis=3), training=False).numpy()
    found = keras.Model(seen.input, seen.get_layer("block_1_expand_relu").output)(picture).numpy()
    assert np.abs(expected).max() > 0.5
    assert np.allclose(found[:, 2:-2, 2:-2], expected[:, 2:-2, 2:-2], atol=1e-4)


def test_eyes_with_weights_are_not_trained_and_those_without_are(network):
    assert {weight.name.split("/")[0] for weight in network.trainable_variables} == {"lungs", "signs"}
    scratch = build(3, INPUT_SIDE)
    assert len(scratch.trainable_variables) > 50
    assert {layer.name for layer in network.layers} <= {layer.name for layer in scratch.layers}


def test_the_mean_of_a_map_is_its_logit_in_float_and_int8(network, graph):
    out = network(PICTURES[..., np.newaxis].astype(np.float32) / 255)
    assert np.allclose(np.mean(out["heat"], axis=(1, 2)), out["scores"], atol=1e-5)
    scores = Classifier(graph).run(PICTURES[0])
    assert scores.heat.shape == (12, 12, 3)
    assert scores.traits.shape == (96,)
    spread = float(np.ptp(scores.heat))
    assert np.allclose(scores.heat.mean(axis=(0, 1)), scores.logits, atol=0.05 * spread + 0.01)


def test_what_lies_outside_the_lungs_cannot_speak():
    model = reader(3, 4)
    kernel, bias = model.get_layer("lungs").get_weights()
    model.get_layer("lungs").set_weights([kernel * 0, bias * 0 - 30])
    out = model(np.random.default_rng(0).uniform(0, 6, (2, 4, 4, ours.FEATURES)).astype(np.float32))
    assert np.abs(out["scores"]).max() < 1e-9
    assert np.abs(out["heat"]).max() < 1e-9


def test_weights_of_another_network_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="no file of weights"):
        build(3, INPUT_SIDE, tmp_path / "none.h5")
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    other.save_weights(tmp_path / "other.h5")
    with pytest.raises(WeightsError, match="does not hold weights"):
        build(3, INPUT_SIDE, tmp_path / "other.h5")


def test_the_int8_input_is_pixel_minus_128(graph):
    scale, zero_point = input_quantization(graph)
    assert np.float32(scale) == np.float32(INPUT_SCALE)
    assert zero_point == INPUT_ZERO_POINT == -128


def test_the_int8_graph_has_no_operation_that_runs_apart(graph):
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = Interpreter(model_content=graph, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    names = {operation["op_name"] for operation in plain._get_ops_details()}
    assert names <= {"CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "MEAN", "MUL", "LOGISTIC", "CONCATENATION"}


def test_int8_follows_float(network, graph):
    float_, int8 = float_logits(network, CALIBRATION), run(graph, CALIBRATION).logits
    assert np.abs(float_ - int8).max() < 0.1 * max(np.abs(float_).max(), 0.1)
