"""The order, the balance and the changes of an epoch's pictures."""

from __future__ import annotations

import msgspec
import numpy as np

from export.batches import Pictures, class_weights, epoch_batches, epoch_order, steps_of, transforms
from export.recipe import Augmentation, Recipe

TARGETS = np.array([0] * 9 + [1] * 6 + [2] * 3)
SIDE = 16
PIXELS = np.random.default_rng(0).integers(0, 256, (18, SIDE, SIDE)).astype(np.uint8)
PICTURES = Pictures(PIXELS, TARGETS, 3)
EVERY = np.arange(18)
RECIPE = Recipe(network="x", classes=["a", "b", "c"], epochs=1, batch=3, optimizer="sgd", rate=0.1)


def but(**changes):
    return msgspec.structs.replace(RECIPE, **changes)


def shown(recipe, epoch=0, train=EVERY, channels=1):
    """All of an epoch: inputs, labels, weights."""
    parts = [[value.numpy() for value in batch] for batch in epoch_batches(PICTURES, train, recipe, channels, epoch)]
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def which(inputs):
    """Which picture each input is, unchanged; -1 where it is none."""
    given = np.rint(inputs[..., 0] * 255).astype(np.int64)
    return [next((i for i, picture in enumerate(PIXELS) if np.array_equal(picture, one)), -1) for one in given]


def test_an_epoch_shows_every_picture_once_in_an_order_of_its_own():
    inputs, labels, weights = shown(RECIPE, channels=3)
    assert inputs.shape == (18, SIDE, SIDE, 3)
    assert np.array_equal(inputs[..., 0], inputs[..., 2])
    order = which(inputs)
    assert sorted(order) == list(range(18))
    assert order != sorted(order)
    assert labels.argmax(axis=1).tolist() == TARGETS[order].tolist()
    assert weights.tolist() == [1] * 18
    assert which(shown(RECIPE, epoch=1)[0]) != order == which(shown(RECIPE)[0])
    assert set(which(shown(RECIPE, train=EVERY[::2])[0])) == set(range(0, 18, 2))


def test_small_classes_are_filled_up_and_only_the_copies_change():
    recipe = but(balance="oversample", augmentation=Augmentation(rotation=20, flip=True, only_copies=True))
    places, copies = epoch_order(TARGETS, recipe, np.random.default_rng(0))
    assert np.bincount(TARGETS[places]).tolist() == [9, 9, 9]
    assert copies.sum() == 9
    assert not (TARGETS[places[copies]] == 0).any()
    assert steps_of(TARGETS, recipe) == 9
    inputs, labels, _ = shown(recipe)
    order = which(inputs)
    assert sorted(i for i in order if i >= 0) == list(range(18))
    assert labels.sum(axis=0).tolist() == [9, 9, 9]
    everything = but(balance="oversample", augmentation=Augmentation(rotation=20))
    assert sum(i >= 0 for i in which(shown(everything)[0])) == 0


def test_class_weights_make_classes_alike():
    weights = class_weights(TARGETS, but(balance="weights"))
    sums = [float(weights[TARGETS][c == TARGETS].sum()) for c in range(3)]
    assert np.allclose(sums, 6)
    assert np.isclose(shown(but(balance="weights"))[2].sum(), 18)


def test_each_change_is_what_its_name_says():
    ramp = np.broadcast_to(np.arange(SIDE, dtype=np.uint8) * 8, (SIDE, SIDE))
    pictures = Pictures(np.stack([ramp] * 64), np.zeros(64, dtype=np.int64), 1)

    def changes(**wanted):
        recipe = but(augmentation=Augmentation(**wanted), batch=64)
        (batch,) = epoch_batches(pictures, np.arange(64), recipe, 1, 0)
        return batch[0].numpy()[..., 0] * 255

    assert np.allclose(changes(), ramp)
    flipped = changes(flip=True)
    mirrored = np.isclose(flipped[:, 0, 0], ramp[0, -1])
    assert 16 < mirrored.sum() < 48
    assert np.allclose(flipped[mirrored][0], ramp[:, ::-1])
    assert np.allclose(changes(height_shift=0.3), ramp)  # a ramp along the rows does not change
    moved = changes(width_shift=0.25)[:, 8, 8] / 8 - 8
    assert 3 < np.abs(moved).max() <= 4.01
    slope = np.diff(changes(zoom=0.2)[:, 8, 6:10], axis=1).mean(axis=1) / 8
    assert 0.79 < slope.min() < 0.9
    assert 1.1 < slope.max() < 1.21
    lean = np.diff(changes(shear=20)[:, 6:10, 8], axis=1).mean(axis=1) / 8
    assert 0.25 < np.abs(lean).max() < np.tan(np.deg2rad(20)) + 0.01
    turn = np.diff(changes(rotation=20)[:, 6:10, 8], axis=1).mean(axis=1) / 8
    assert 0.25 < np.abs(turn).max() < np.sin(np.deg2rad(20)) + 0.01


def test_no_change_is_the_identity():
    (one,) = transforms(1, 50, Augmentation(), np.random.default_rng(0))
    assert one.tolist() == [1, 0, 0, 0, 1, 0, 0, 0]
