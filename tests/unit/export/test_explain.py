from __future__ import annotations

import math

import numpy as np
import pytest

from export.explain import class_activation_map, grad_cam, gradient_saliency, heat_in_lungs
from export.legacy_keras import keras
from tests.unit.export.small_network import build


@pytest.fixture(scope="module")
def quarter():
    """A network whose second logit is the mean of the picture's upper left quarter, its first one the mean of the rest."""
    picture = keras.Input((16, 16, 1))
    layer = keras.layers.Conv2D(2, 8, strides=8, use_bias=False, name="maps")
    maps = layer(picture)
    layer.set_weights([np.stack([np.zeros((8, 8, 1)), np.full((8, 8, 1), 1 / 64)], axis=-1)])
    flat = keras.layers.Flatten()(maps)
    dense = keras.layers.Dense(2, use_bias=False)
    logits = dense(flat)
    weights = np.zeros((8, 2))
    weights[1, 1] = 1.0  # the second map's upper left value
    weights[[3, 5, 7], 0] = 1.0
    dense.set_weights([weights])
    return keras.Model(picture, logits)


def test_the_gradient_is_where_the_logit_comes_from(quarter):
    pictures = np.random.default_rng(0).random((3, 16, 16, 1)).astype(np.float32)
    found = gradient_saliency(quarter, pictures, np.array([1, 0, 1]))
    assert found.shape == (3, 16, 16)
    corner = np.zeros((16, 16), bool)
    corner[:8, :8] = True
    assert np.allclose(found[0][corner], 1 / 64)
    assert not found[0][~corner].any()
    assert not found[1][corner].any()
    assert found[1][~corner].all()


def test_the_saliency_of_our_network_knows_its_two_outputs():
    model = build(3, 32, stem=(16, 16))
    found = gradient_saliency(model, np.random.default_rng(0).random((18, 32, 32, 1)).astype(np.float32), np.zeros(18, np.int64))
    assert found.shape == (18, 32, 32)
    assert found.max() > 0


def test_grad_cam_weighs_maps_by_their_gradient():
    picture = keras.Input((8, 8, 1))
    layer = keras.layers.Conv2D(2, 1, use_bias=False, name="maps")
    maps = layer(picture)
    layer.set_weights([np.array([1.0, -1.0]).reshape(1, 1, 1, 2)])
    pooled = keras.layers.GlobalAveragePooling2D()(maps)
    dense = keras.layers.Dense(2, use_bias=False)
    model = keras.Model(picture, dense(pooled))
    dense.set_weights([np.eye(2)])
    given = np.zeros((2, 8, 8, 1), np.float32)
    given[:, 2, 5] = 1.0
    found = grad_cam(model, given, np.array([0, 1]))
    assert np.argwhere(found[0] > 0).tolist() == [[2, 5]]
    assert not found[1].any(), "what speaks against a class is no heat for it"


def test_a_network_without_maps_has_no_grad_cam():
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2)], name="flat")
    model.build((None, 4, 4, 1))
    flat = keras.Model(model.layers[0].output, model.layers[-1].output)
    with pytest.raises(ValueError, match="no layer with maps"):
        grad_cam(flat, np.zeros((1, 4, 4, 1), np.float32), np.array([0]))


def test_class_map_is_the_network_s_own():
    heat = np.arange(12.0).reshape(2, 2, 3)
    assert class_activation_map(heat, 1).tolist() == [[1, 4], [7, 10]]
    with pytest.raises(ValueError, match="grad_cam"):
        class_activation_map(np.empty((0, 0, 3)), 1)


def test_heat_in_lungs_by_hand():
    mask = np.zeros((4, 4), bool)
    mask[:2] = True
    heat = np.zeros((4, 4))
    heat[0, 0], heat[3, 3], heat[3, 0] = 3.0, 1.0, -9.0
    assert heat_in_lungs(heat, mask) == pytest.approx(0.75)
    assert math.isnan(heat_in_lungs(-np.ones((4, 4)), mask))
    assert heat_in_lungs(np.ones((2, 2)), mask) == pytest.approx(0.5), "even heat reaches the mask's share of the picture"
