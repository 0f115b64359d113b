"""What a training writes of each epoch, and a report draws: `history.json`, a list of these."""

from __future__ import annotations

import msgspec


class Epoch(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the history.

    frozen: whether backbones were held still. rate: that was trained with. loss, accuracy: of the training, with its changes and
    dropout. val_loss, val_accuracy: of held-out patients. Losses are cross-entropies in nats, accuracies shares.
    """

    epoch: int
    frozen: bool = False
    rate: float
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float
