"""The labelled X-rays: manifests, and pixels by the same decoding and preprocessing as on the device."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge.decode import decode_file
from edge.preprocess import INPUT_SIDE, centre_square, preprocess_image

CLASSES = ("normal", "pneumonia", "covid19")
"""In the order of the network's outputs. Other labels of the manifests are left out."""

Pixels = npt.NDArray[np.uint8]
"""Shape (n, INPUT_SIDE, INPUT_SIDE), network inputs."""


@dataclass(frozen=True)
class Sample:
    """One labelled X-ray.

    Attributes:
        file: path of the picture.
        label: one of CLASSES.
        patient: code of the patient, the same in every data set.
        source: where the publisher of the set took the picture from; what a network must not learn.
        dataset: name of the folder.
        lung_mask: path of a mask of the lungs, of the picture's size, or None.
    """

    file: Path
    label: str
    patient: str
    source: str
    dataset: str
    lung_mask: Path | None = None

    @property
    def target(self) -> int:
        """Index of the label in CLASSES."""
        return CLASSES.index(self.label)


def read_dataset(data: Path, name: str) -> list[Sample]:
    """Return the samples of one data set that have a label of CLASSES, in the order of the manifest; byte-identical files once.

    Raises:
        FileNotFoundError: if there is no such data set.
        KeyError: if the manifest lacks a column.
    """
    folder = data / name
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["label"] in CLASSES]
    samples = [
        Sample(
            file=folder / row["file"],
            label=row["label"],
            patient=row["patient"],
            source=row["source"],
            dataset=name,
            lung_mask=folder / row["lung_mask"] if row["lung_mask"] else None,
        )
        for row in rows
    ]
    return _without_twins(samples)


def load_pixels(samples: Iterable[Sample]) -> Pixels:
    """Decode and preprocess; shape (n, INPUT_SIDE, INPUT_SIDE), uint8.

    Raises:
        edge.errors.ImageError: if a file cannot be read.
    """
    return np.stack([np.asarray(preprocess_image(decode_file(sample.file).image)) for sample in samples])


def load_lungs(samples: Iterable[Sample]) -> npt.NDArray[np.bool_]:
    """Return where the lungs are in the network inputs; shape (n, INPUT_SIDE, INPUT_SIDE).

    Raises:
        ValueError: if a sample has no mask.
    """
    return np.stack([_lungs(sample) for sample in samples])


def targets(samples: Sequence[Sample]) -> npt.NDArray[np.int64]:
    """Return class indexes; shape (n,)."""
    return np.array([sample.target for sample in samples], dtype=np.int64)


def patients(samples: Sequence[Sample]) -> npt.NDArray[np.str_]:
    """Return patient codes; shape (n,)."""
    return np.array([sample.patient for sample in samples], dtype=np.str_)


def _lungs(sample: Sample) -> npt.NDArray[np.bool_]:
    if sample.lung_mask is None:
        raise ValueError(f"{sample.file.name} has no lung mask")
    with Image.open(sample.lung_mask) as image:
        mask = image.convert("L")
    box = centre_square(mask.height, mask.width)
    small = mask.resize((INPUT_SIDE, INPUT_SIDE), Image.Resampling.NEAREST, box=box)
    return np.asarray(small) > 0


def _without_twins(samples: list[Sample]) -> list[Sample]:
    seen: set[bytes] = set()
    kept: list[Sample] = []
    for sample in samples:
        digest = hashlib.sha256(sample.file.read_bytes()).digest()
        if digest not in seen:
            seen.add(digest)
            kept.append(sample)
    return kept
