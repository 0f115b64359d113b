"""What a training needs to go on after a kill: one file, written beside and renamed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from export.errors import RecipeError
from export.history import Epoch

NAME = "checkpoint.npz"

Arrays = list[npt.NDArray[Any]]


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Besides the arrays.

    rate: of the next epoch. best, waited: of the plateau, see `export.training`. started_from: backbones that had
    weights of others.
    """

    history: list[Epoch] = []
    rate: float
    best: float | None = None
    waited: int = 0
    started_from: list[str] = []

    @property
    def done(self) -> int:
        """Epochs that are behind it."""
        return len(self.history)


def save_checkpoint(folder: Path, progress: Progress, weights: Arrays, optimizer: Arrays) -> None:
    """Replace the checkpoint of `folder`. A kill leaves the old one or the new one."""
    arrays = {f"weight{i:05}": array for i, array in enumerate(weights)}
    arrays |= {f"optimizer{i:05}": array for i, array in enumerate(optimizer)}
    arrays["progress"] = np.frombuffer(msgspec.json.encode(progress), dtype=np.uint8)
    beside = folder / f"{NAME}.new"
    with beside.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's type takes a keyword for the file too
        file.flush()
        os.fsync(file.fileno())
    beside.replace(folder / NAME)


def load_checkpoint(folder: Path) -> tuple[Progress, Arrays, Arrays] | None:
    """Return what `save_checkpoint` wrote, or None if there is nothing.

    Raises:
        RecipeError: if the file is damaged.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        with np.load(path) as file:
            names = sorted(file.files)
            progress = msgspec.json.decode(file["progress"].tobytes(), type=Progress)
            weights = [file[name] for name in names if name.startswith("weight")]
            optimizer = [file[name] for name in names if name.startswith("optimizer")]
    except (ValueError, OSError, KeyError, EOFError, msgspec.DecodeError) as error:
        raise RecipeError(f"{path} is damaged ({error}). Remove the folder and begin again.") from None
    return progress, weights, optimizer
