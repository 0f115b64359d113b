"""Training of the quality gate (`edge.network.gate`): a small network of the shrunk picture and a linear function of the traits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.network.gate import GOOD, Gate
from edge.pixels.preprocess import INPUT_SIDE, Frame
from export.gate_files import MadeGate
from export.gate_views import POOLED, Small, Strings, Views
from export.legacy_keras import keras
from export.quantize import quantize
from export.wrong_views import REASON_OF, REASONS

REFUSED_OF_KNOWN = 0.01
"""Share of good pictures of held-out patients, harmlessly changed or not, that may fall below the limit."""

HIGHEST_LIMIT = 0.1
"""A limit above it, from known pictures that are all easy, would refuse many a good picture of a source that is not known."""

HELD_OUT = 0.25
"""Share of the patients of whom the limit is chosen; nothing else is learned from them."""

EPOCHS = 10
_BATCH = 128
_RATE = 1.5e-3
_UNITS = 48
_REPRESENTATIVE = 400

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]


def make_gate(views: Views, seed: int, *, epochs: int = EPOCHS) -> MadeGate:
    """Train on most patients, choose the limit of the others; the same inputs give the same bytes.

    Args:
        views: of all kinds.
        seed: of who is held out, and of everything else.
        epochs: fewer for a quick trial.
    """
    out = _held_out(views.patient, seed)
    model, weights = _trained(views.only(~out), seed, epochs)
    chosen = np.random.default_rng(seed).permutation(len(views.kind))[:_REPRESENTATIVE]
    made = MadeGate(quantize(model, np.stack([widened(small) for small in views.small[chosen]])), weights, REASONS, 0.0)
    good = np.array([REASON_OF[str(kind)] == GOOD for kind in views.kind])
    chances = chances_of(made.on_device(), views.only(out & good))[:, 0]
    return replace(made, limit=round(min(float(np.quantile(chances, REFUSED_OF_KNOWN)), HIGHEST_LIMIT), 6))


def chances_of(gate: Gate, views: Views) -> Floats:
    """Return what a device's gate says of views, shape (n, reasons)."""
    return np.stack([gate.chances(widened(small), traits) for small, traits in zip(views.small, views.traits, strict=True)])


def widened(small: Small) -> Frame:
    """Return a network input that the gate's graph shrinks to `small`."""
    return np.ascontiguousarray(small.repeat(POOLED, 0).repeat(POOLED, 1))


def _held_out(patients: Strings, seed: int) -> npt.NDArray[np.bool_]:
    names = np.unique(patients)
    drawn = np.random.default_rng(seed).permutation(names)[: max(round(len(names) * HELD_OUT), 1)]
    return np.isin(patients, drawn)


def _trained(views: Views, seed: int, epochs: int) -> tuple[Any, Floats32]:
    """Return the network of the picture and the weights of the traits."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    truth = np.array([REASONS.index(REASON_OF[str(kind)]) for kind in views.kind])
    mean, scale = views.traits.mean(axis=0), views.traits.std(axis=0)
    scale = np.maximum(scale, 0.1 * np.median(scale))  # a trait that hardly moves here is not to move everything elsewhere
    traits = ((views.traits - mean) / scale).astype(np.float32)
    plain = traits[views.kind == GOOD]
    picture, given = keras.Input((INPUT_SIDE, INPUT_SIDE, 1), name="picture"), keras.Input((traits.shape[1],), name="traits")
    eyes = _eyes()
    said = keras.layers.Dense(len(REASONS), use_bias=False, name="of_traits")
    small = keras.Input((*views.small.shape[1:], 1))
    both = keras.Model([small, given], keras.layers.Add()([eyes(small), said(given)]))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    both.compile(keras.optimizers.Adam(_RATE), loss)
    for epoch in range(epochs):
        both.optimizer.learning_rate.assign(_RATE * 0.5 * (1 + np.cos(np.pi * epoch / epochs)) + _RATE / 20)
        order = rng.permutation(len(truth))
        shaken = traits[order] + _jitter(plain, len(order), rng)
        both.fit(
            [views.small[order, ..., np.newaxis] / np.float32(255), shaken],
            truth[order],
            batch_size=_BATCH,
            verbose=0,
            shuffle=False,
        )
    model = keras.Model(picture, eyes(keras.layers.AveragePooling2D(POOLED)(picture)))
    kernel = said.get_weights()[0].T / scale
    return model, np.ascontiguousarray(np.column_stack([kernel, -(kernel @ mean)]), np.float32)


def _jitter(plain: Floats32, count: int, rng: np.random.Generator) -> Floats32:
    """Return differences between good pictures, each times 0 to 2: in what those differ the gate is not to look for what is wrong.

    Sources differ in the traits more than good pictures do from wrong ones, and the next hospital differs again.
    """
    first, second = (plain[rng.integers(0, len(plain), count)] for _ in range(2))
    return (first - second) * rng.uniform(0, 2, (count, 1)).astype(np.float32)


def _eyes() -> Any:
    layers = keras.layers
    steps: Sequence[Any] = [
        layers.Conv2D(12, 5, strides=2, padding="same", activation="relu"),
        layers.Conv2D(24, 3, strides=2, padding="same", activation="relu"),
        layers.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
        layers.Flatten(),
        layers.Dropout(0.3),
        layers.Dense(_UNITS, activation="relu"),
        layers.Dense(len(REASONS)),
    ]
    return keras.Sequential(steps)
