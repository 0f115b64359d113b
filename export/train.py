"""Training of our network's reader, on what its eyes see of the pictures (`export.views`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from export.augment import Strength
from export.legacy_keras import keras, tf
from export.networks.ours import centre, give_back, reader, take_in
from export.views import Views

_SCALE = 12.0
"""Of the logits while training: the means of maps differ little between pictures, and weights would take many steps to grow."""

_FINEST = 0.3
"""Features that vary less are not stretched further: one int8 step of theirs would weigh too much."""


@dataclass(frozen=True)
class Recipe:
    """Everything that the result of a training depends on, besides the data.

    views: of each picture. epochs: passes over all views. batch, emptied: pictures, and pictures without a middle, a step.
    rate: highest learning rate of Adam (warm-up, then cosine). smoothing: pull of every answer towards equal probabilities.
    no_middle: the same pull, for pictures without a middle. lungs: weight of finding the lungs. outside: weight of keeping the
    signs inside them. penalty: on the squares of the signs' weights.
    """

    strength: Strength = field(default_factory=Strength)
    views: int = 4
    epochs: int = 10
    batch: int = 128
    emptied: int = 32
    rate: float = 1e-2
    smoothing: float = 0.01
    no_middle: float = 0.15
    lungs: float = 1.0
    outside: float = 0.2
    penalty: float = 1e-4
    seed: int = 0


@dataclass(frozen=True)
class Lesson:
    """Which pictures a reader learns from.

    views: of all pictures. allowed: shape (n, classes), 1 for each class that a picture may be; all 1 teaches nothing of classes.
    masked: shape (n,); whether its lungs are known. chosen: indexes. weight: shape (n,); how often each is drawn.
    """

    views: Views
    allowed: npt.NDArray[np.float32]
    masked: npt.NDArray[np.bool_]
    chosen: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Start:
    """What a training goes on from.

    reader: for plain features; it is not changed. pull: what the sum of the squares of the weights' changes costs, measured where
    all features vary alike. In place of the recipe's penalty.
    """

    reader: Any
    pull: float


def train(lesson: Lesson, recipe: Recipe, start: Start | None = None) -> Any:
    """Return a trained reader (see `export.networks.ours.reader`) for plain features; without a start its weights are random."""
    keras.utils.set_random_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    views, chosen = lesson.views, lesson.chosen
    classes, rows = lesson.allowed.shape[1], views.features.shape[2]
    plain = views.features[0, chosen].astype(np.float32)
    mean, deviation = plain.mean(axis=(0, 1, 2)), np.maximum(plain.std(axis=(0, 1, 2)), np.float32(_FINEST))
    model = reader(classes, rows)
    steps = max(len(chosen) * len(views.features) // recipe.batch, 1) * recipe.epochs
    optimizer = keras.optimizers.Adam(_schedule(recipe.rate, steps, recipe.epochs))
    optimizer.build(model.trainable_variables)
    if start is not None:
        model.set_weights(start.reader.get_weights())
        give_back(model, mean, deviation, _SCALE)
    step = _step(model, optimizer, recipe, None if start is None else start.pull)
    chance = lesson.weight[chosen] / lesson.weight[chosen].sum()
    taught = chosen[(lesson.allowed[chosen] == 0).any(axis=1)]  # pictures of no use for the classes are not emptied either
    for _ in range(steps):
        drawn = rng.choice(chosen, recipe.batch, p=chance)
        view = int(rng.integers(len(views.features)))
        emptied = views.emptied[rng.choice(taught, recipe.emptied)]
        features = np.concatenate([views.features[view, drawn], emptied]).astype(np.float32)
        lungs, masked = views.lungs[view, drawn].astype(np.float32), lesson.masked[drawn].astype(np.float32)
        step(tf.constant((features - mean) / deviation), lesson.allowed[drawn], lungs, masked)
    take_in(model, mean, deviation, _SCALE)
    centre(model)
    return model


def _schedule(rate: float, steps: int, epochs: int) -> Any:
    warm = max(steps // (2 * epochs), 1)
    return keras.optimizers.schedules.CosineDecay(
        rate / 10, max(steps - warm, 1), alpha=0.01, warmup_target=rate, warmup_steps=warm
    )


def _step(model: Any, optimizer: Any, recipe: Recipe, pull: float | None) -> Any:
    signs = model.get_layer("signs")
    before = [tf.constant(variable) for variable in model.trainable_variables]

    @tf.function  # type: ignore[untyped-decorator]
    def step(features: Any, allowed: Any, lungs: Any, masked: Any) -> None:
        count = tf.shape(allowed)[0]
        with tf.GradientTape() as tape:
            out = model(features, training=True)
            chances = tf.nn.log_softmax(out["scores"] * _SCALE)
            even = -tf.reduce_mean(chances, axis=1)
            # The probability of all classes that the picture may be; with one such class this is the cross-entropy.
            answer = -tf.reduce_mean(tf.reduce_logsumexp(chances[:count] + tf.math.log(allowed + 1e-9), axis=1))
            loss = answer + recipe.smoothing * tf.reduce_mean(even[:count]) + recipe.no_middle * tf.reduce_mean(even[count:])
            loss += recipe.lungs * _among(masked, _lung_loss(out["lungs"][:count], lungs))
            loss += recipe.outside * _among(masked, _outside(out["heat"][:count], allowed, lungs))
            variables = model.trainable_variables
            if pull is None:
                loss += recipe.penalty * tf.reduce_sum(tf.square(signs.kernel))
            else:
                changes = [tf.reduce_sum(tf.square(now - then)) for now, then in zip(variables, before, strict=True)]
                loss += pull * tf.add_n(changes)
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    return step


def _lung_loss(logits: Any, lungs: Any) -> Any:
    """Return the cross-entropy of the lung map, shape (n,)."""
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(lungs, logits[..., 0]), axis=(1, 2))


def _outside(heat: Any, allowed: Any, lungs: Any) -> Any:
    """Return the share of the heat that speaks for the class and lies outside the lungs, shape (n,)."""
    relative = heat - tf.reduce_mean(heat, axis=3, keepdims=True)
    speaking = tf.nn.relu(tf.reduce_sum(relative * allowed[:, tf.newaxis, tf.newaxis, :], axis=3))
    total = tf.reduce_sum(speaking, axis=(1, 2)) + 1e-3
    return tf.reduce_sum(speaking * (1 - lungs), axis=(1, 2)) / total


def _among(chosen: Any, values: Any) -> Any:
    return tf.reduce_sum(values * chosen) / (tf.reduce_sum(chosen) + 1e-3)
