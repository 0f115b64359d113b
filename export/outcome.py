"""What a finished training leaves: weights, history, curves, the int8 file, and how far int8 and float agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from export.batches import Pictures
from export.checkpoint import NAME as CHECKPOINT
from export.compress.formats import Runner, convert
from export.compress.representative import REPRESENTATIVE, representative_by_patient
from export.curves import draw_curves
from export.dataset import Sample
from export.networks.borrowed import LearnedRatio
from export.networks.catalog import Network
from export.recipe import Recipe
from export.splits import Indexes, Split
from export.training import Floats, Say, Trained, logits_of

WEIGHTS, HISTORY, CURVES, INT8, RESULT = "weights.h5", "history.json", "curves.png", "network.int8.tflite", "result.json"

_AT_A_TIME = 64


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Of one training. val_*: of the last epoch. agreed: held-out pictures (of `held_out`) that int8 decides as float does.

    ratio: share of each backbone in a network that learns it, else empty. started_from: backbones that had weights of others.
    """

    network: str
    parameters: int
    epochs: int
    val_accuracy: float
    val_loss: float
    started_from: list[str]
    ratio: dict[str, float]
    held_out: int
    agreed: int | None = None
    int8_bytes: int | None = None


@dataclass(frozen=True)
class Unseen:
    """Logits of the held-out and the tested pictures; shape (n, classes)."""

    validation: Floats
    test: Floats


def write_outcome(
    folder: Path,
    trained: Trained,
    samples: Sequence[Sample],
    pictures: Pictures,
    split: Split,
    recipe: Recipe,
    network: Network,
    *,
    int8: bool,
    say: Say,
) -> tuple[Result, Unseen, Unseen | None]:
    """Write all files into `folder`; return the result, the logits in float, and in int8 where asked for.

    The result's own file is written last, whole: where it is, the training is finished.
    """
    model = trained.model
    model.save_weights(folder / WEIGHTS)
    (folder / HISTORY).write_bytes(msgspec.json.format(msgspec.json.encode(trained.history), indent=1) + b"\n")
    draw_curves(folder / CURVES, trained.history, f"{network.name}, {', '.join(recipe.classes)}")
    floats = Unseen(*(_logits(model, pictures, part) for part in (split.validation, split.test)))
    last = trained.history[-1]
    result = Result(
        network=network.name,
        parameters=int(model.count_params()),
        epochs=len(trained.history),
        val_accuracy=last.val_accuracy,
        val_loss=last.val_loss,
        started_from=trained.started_from,
        ratio=learned_ratio(model, network),
        held_out=len(split.validation),
    )
    for name, share in result.ratio.items():
        say(f"{network.name}: the learned share of {name} is {share:.3f}")
    fixed = None
    if int8:
        learned = [samples[int(i)] for i in split.train]
        shown = split.train[representative_by_patient(learned, REPRESENTATIVE, recipe.seed)]
        graph = convert(model, "int8", _channels(pictures.pixels[shown], network.channels))
        (folder / INT8).write_bytes(graph)
        fixed = Unseen(*(_int8_logits(graph, pictures, part, network.channels) for part in (split.validation, split.test)))
        agreed = int((fixed.validation.argmax(axis=1) == floats.validation.argmax(axis=1)).sum())
        result = msgspec.structs.replace(result, agreed=agreed, int8_bytes=len(graph))
        share = agreed / max(result.held_out, 1)
        apart = float(np.abs(fixed.validation - floats.validation).mean() / max(np.ptp(floats.validation), 1e-9))
        say(
            f"int8: {len(graph):,} bytes; decides {agreed} of {result.held_out} held-out pictures as float does ({share:.1%}); "
            f"logits differ by {apart:.1%} of their range"
        )
    return result, floats, fixed


def close_training(folder: Path, result: Result) -> None:
    """Mark a training as finished, and drop what was only there to go on from."""
    beside = folder / f"{RESULT}.new"
    beside.write_bytes(msgspec.json.encode(result) + b"\n")
    beside.replace(folder / RESULT)
    (folder / CHECKPOINT).unlink(missing_ok=True)


def read_result(folder: Path) -> Result | None:
    """Return the result of a finished training, or None."""
    path = folder / RESULT
    return msgspec.json.decode(path.read_bytes(), type=Result) if path.exists() else None


def learned_ratio(model: Any, network: Network) -> dict[str, float]:
    """Return the share of each of two backbones whose mixture was learned (P4), or nothing."""
    for layer in model.layers:
        if isinstance(layer, LearnedRatio):
            first, second = network.backbones
            return {first: layer.ratio(), second: 1.0 - layer.ratio()}
    return {}


def _logits(model: Any, pictures: Pictures, part: Indexes) -> Floats:
    return logits_of(model, pictures.pixels, part) if len(part) else np.zeros((0, pictures.classes))


def _int8_logits(graph: bytes, pictures: Pictures, part: Indexes, channels: int) -> Floats:
    if not len(part):
        return np.zeros((0, pictures.classes))
    runner = Runner(graph)
    parts = [part[first : first + _AT_A_TIME] for first in range(0, len(part), _AT_A_TIME)]
    return np.concatenate([runner.logits(_channels(pictures.pixels[p], channels)) for p in parts])


def _channels(pixels: npt.NDArray[np.uint8], channels: int) -> npt.NDArray[np.uint8]:
    return np.repeat(pixels[..., np.newaxis], channels, axis=3)
