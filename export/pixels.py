"""Pictures of a training, decoded once into a file that is mapped, so that memory holds what is in use and no more."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge.pixels.preprocess import PREPROCESS_VERSION
from export.dataset import Pixels, Sample, load_pixels

PREFIX = "pixels-"


def mapped_pixels(samples: Sequence[Sample], side: int, folder: Path) -> Pixels:
    """Return the pictures, shape (n, side, side), uint8, from a file in `folder`, which is written if it is not there.

    Raises:
        DataError: if pictures cannot be read.
    """
    path = folder / f"{PREFIX}{_digest(samples, side)}.npy"
    if not path.exists():
        beside = path.with_suffix(f".{os.getpid()}.new")
        try:
            load_pixels(samples, side, beside)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    pixels: Pixels = np.load(path, mmap_mode="r")
    return pixels


def remove_pixels(folder: Path) -> None:
    """Remove what `mapped_pixels` has written: these are pictures of patients, and they can be made again."""
    for path in folder.glob(f"{PREFIX}*"):
        path.unlink()


def _digest(samples: Sequence[Sample], side: int) -> str:
    digest = hashlib.sha256(f"{PREPROCESS_VERSION} {side}".encode())
    for sample in samples:
        state = sample.file.stat()
        digest.update(f"{sample.file} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
