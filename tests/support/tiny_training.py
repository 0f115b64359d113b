"""A training that takes seconds, for tests that need it in a process of its own.

`python -m tests.support.tiny_training killed FOLDER` trains and says a line an epoch; its test ends it with SIGKILL.
`python -m tests.support.tiny_training worker FOLDER` is one of the machines that TF_CONFIG names.
`python -m tests.support.tiny_training mirrored FOLDER` trains on two logical CPU devices and on one, and compares.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from export.batches import Pictures
from export.legacy_keras import keras, tf
from export.networks.catalog import Network
from export.recipe import Augmentation, Plateau, Recipe
from export.strategy import ONE_DEVICE, make_strategy
from export.training import Trained, train_network

layers = keras.layers

SIDE = 32
TRAIN, VALIDATION = np.arange(24), np.arange(24, 36)
RECIPE = Recipe(
    network="tiny",
    classes=["normal", "pneumonia", "covid19"],
    side=SIDE,
    epochs=6,
    batch=4,
    optimizer="adam",
    rate=1e-2,
    plateau=Plateau(factor=0.5, patience=1, monitor="val_accuracy"),
    augmentation=Augmentation(rotation=10, zoom=0.1, flip=True),
    balance="oversample",
)


def make(classes: int, weights: Any, side: int, *, plain: bool = False) -> Any:
    """A backbone of one convolution, and a head. plain: without dropout and batch normalization."""
    picture = keras.Input((side, side, 1))
    flow = layers.Conv2D(4, 3, strides=2, activation="relu", name="first")(picture)
    if not plain:
        flow = layers.BatchNormalization(name="norm")(flow)
        flow = layers.Dropout(0.3, name="dropout")(flow)
    flow = layers.GlobalAveragePooling2D(name="head_pool")(flow)
    return keras.Model(picture, layers.Dense(classes, name="head_scores")(flow), name="tiny")


TINY = Network("tiny", "nobody", SIDE, 1, make, ("Tiny",))
PLAIN = Network("plain", "nobody", SIDE, 1, lambda classes, weights, side: make(classes, weights, side, plain=True))


def pictures(classes: int = 3) -> Pictures:
    """Noise whose brightness is the class."""
    rng = np.random.default_rng(0)
    targets = np.arange(36) % 5 % classes
    pixels = rng.integers(0, 120, (36, SIDE, SIDE)) + 60 * targets[:, None, None]
    return Pictures(pixels.astype(np.uint8), targets, classes)


def tiny_training(folder: Path, recipe: Recipe = RECIPE, network: Network = TINY, say: Any = print, **others: Any) -> Trained:
    """Train in `folder`."""
    folder.mkdir(exist_ok=True)
    return train_network(recipe, network, pictures(len(recipe.classes)), TRAIN, VALIDATION, folder, say=say, **others)


def _mirrored(folder: Path) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = make_strategy("mirrored")
    recipe = Recipe(network="plain", classes=RECIPE.classes, side=SIDE, epochs=2, batch=4, optimizer="sgd", rate=0.1, seed=3)
    one = tiny_training(folder / "one", recipe, PLAIN, strategy=ONE_DEVICE)
    two = tiny_training(folder / "two", recipe, PLAIN, strategy=strategy)
    apart = max(float(np.abs(a - b).max()) for a, b in zip(one.model.get_weights(), two.model.get_weights(), strict=True))
    gone_on = tiny_training(folder / "two", recipe, PLAIN, strategy=strategy)
    same = all(np.array_equal(a, b) for a, b in zip(two.model.get_weights(), gone_on.model.get_weights(), strict=True))
    with_norm = tiny_training(folder / "norm", network=TINY, strategy=strategy)
    print(f"replicas {strategy.inner.num_replicas_in_sync}", f"apart {apart:.2g}", f"same {same}")
    print(f"norm {with_norm.history[-1].val_accuracy:.2f}")


if __name__ == "__main__":
    what, where = sys.argv[1], Path(sys.argv[2])
    if what == "mirrored":
        _mirrored(where)
    elif what == "worker":
        strategy = make_strategy("multiworker")
        told = tiny_training(where, strategy=strategy)
        print("chief" if strategy.chief else "other", told.history[-1].val_loss, [w.sum() for w in told.model.get_weights()])
    else:
        tiny_training(where, say=lambda line: print(line, flush=True))
