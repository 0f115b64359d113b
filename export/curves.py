"""Learning curves as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from export.history import Epoch

_TRAINING, _HELD_OUT = "#1f5fa8", "#c4561b"


def draw_curves(file: Path, history: Sequence[Epoch], title: str) -> None:
    """Draw loss, accuracy and learning rate over the epochs into `file` (PNG). Frozen epochs have a gray ground."""
    epochs = [row.epoch for row in history]
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    loss, accuracy, rate = figure.subplots(1, 3)
    marker = "o" if len(history) < 30 else ""
    for axes, name, values in (
        (loss, "loss", [(row.loss, row.val_loss) for row in history]),
        (accuracy, "accuracy", [(row.accuracy, row.val_accuracy) for row in history]),
    ):
        axes.plot(epochs, [value for value, _ in values], marker=marker, ls="-", ms=3, color=_TRAINING, label="training")
        axes.plot(epochs, [value for _, value in values], marker=marker, ls="-", ms=3, color=_HELD_OUT, label="held-out patients")
        axes.set_ylabel(name)
        axes.legend(frameon=False)
    loss.set_ylim(0, 1.05 * max(max(row.loss, row.val_loss) for row in history))
    accuracy.set_ylim(0, 1)
    rate.step(epochs, [row.rate for row in history], where="mid", color=_TRAINING)
    rate.set_yscale("log")
    rate.set_ylabel("learning rate")
    frozen = [row.epoch for row in history if row.frozen]
    for axes in (loss, accuracy, rate):
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25)
        if frozen:
            axes.axvspan(min(frozen) - 0.5, max(frozen) + 0.5, color="#000000", alpha=0.06, lw=0)
    figure.savefig(file, dpi=110)
