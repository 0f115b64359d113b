"""Training a smaller network to say what a larger one says (Hinton, Vinyals and Dean 2015, "Distilling the knowledge")."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from export.augment import Strength, distort
from export.compress.formats import Pictures, scores_of
from export.legacy_keras import keras


@dataclass(frozen=True)
class Distiller:
    """A `export.compress.pruning.FineTune` that needs no labels: the logits of the unchanged network are what is learned.

    So a pruned or rounded network stays close to the one whose figures are known, also where both are unsure.

    Attributes:
        teacher: Keras model, the network before the change.
        pictures: shape (n, side, side, channels), uint8, of the training part; the channels are alike.
        epochs: how often all are shown, changed by `export.augment`.
        rate: highest learning rate of Adam; it falls to zero along a cosine.
        batch: pictures a step.
        strength: of the changes.
        seed: of the order and the changes.
    """

    teacher: Any
    pictures: Pictures
    epochs: int = 4
    rate: float = 3e-4
    batch: int = 16
    strength: Strength = field(default_factory=Strength)
    seed: int = 0

    @property
    def steps(self) -> int:
        """Of the optimizer, in all."""
        return max(len(self.pictures) // self.batch, 1) * self.epochs

    def __call__(self, trainee: Any, callbacks: Sequence[Any]) -> None:
        """Train `trainee`, whose only output is the logits, in place.

        Batch normalization keeps its statistics: a few steps on changed and mixed pictures would replace them by those of pictures
        that the network will not meet. (In Keras 2 a frozen normalization uses what it has stored, in training too.)
        """
        norms = [layer for layer in trainee.layers if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable]
        for layer in norms:
            layer.trainable = False
        rate = keras.optimizers.schedules.CosineDecay(self.rate, self.steps)
        trainee.compile(optimizer=keras.optimizers.Adam(rate), loss="mse")
        trainee.fit(
            self._batches(),
            steps_per_epoch=self.steps // self.epochs,
            epochs=self.epochs,
            verbose=0,
            callbacks=list(callbacks),
        )
        for layer in norms:
            layer.trainable = True

    def _batches(self) -> Iterator[Any]:
        rng = np.random.default_rng(self.seed)
        gray, channels = self.pictures[..., 0], self.pictures.shape[-1]
        while True:
            order = np.resize(rng.permutation(len(gray)), max(len(gray) // self.batch, 1) * self.batch)
            for first in range(0, len(order), self.batch):
                part = gray[order[first : first + self.batch]]
                changed, _ = distort(part, np.zeros(part.shape, np.float32), self.strength, rng)
                given = np.repeat(changed[..., np.newaxis], channels, axis=3)
                yield given, np.asarray(scores_of(self.teacher(given, training=False)))
