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
from edge.errors import ImageError
from edge.preprocess import INPUT_SIDE, centre_square, preprocess_image
from export.errors import DataError

CLASSES = ("normal", "pneumonia", "covid19")
"""In the order of the network's outputs. Other labels of the manifests are left out."""

Pixels = npt.NDArray[np.uint8]
"""Shape (n, INPUT_SIDE, INPUT_SIDE), network inputs."""


COLUMNS = ("file", "label", "patient", "source", "lung_mask")
"""Of a manifest; others may stand beside them."""


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
        DataError: if there is no such data set, its manifest lacks a column, or files that it names are not there.
    """
    folder = data / name
    rows = [row for row in _manifest(folder / "manifest.csv") if row["label"] in CLASSES]
    named = [row[column] for row in rows for column in ("file", "lung_mask") if row[column]]
    missing = [file for file in named if not (folder / file).is_file()]
    if missing:
        raise DataError(f"{name}/manifest.csv names {_some(missing)} that are not there. Copy the set whole, or remove their rows.")
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


def require_classes(samples: Sequence[Sample], classes: Sequence[str]) -> None:
    """Return if there is a picture of every class.

    Raises:
        DataError: naming those of which there is none.
    """
    empty = [name for name in classes if not any(sample.label == name for sample in samples)]
    if empty:
        raise DataError(f"There is no picture of {' and none of '.join(empty)} among {len(samples)}. Check the manifests' labels.")


def some_of_each(samples: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    """Return about `count` samples, of every class as many, chosen at random and in random order."""
    rng = np.random.default_rng(seed)
    names = sorted({sample.label for sample in samples})
    chosen: list[Sample] = []
    for name in names:
        mine = [sample for sample in samples if sample.label == name]
        chosen += [mine[int(i)] for i in rng.permutation(len(mine))[: -(-count // len(names))]]
    return [chosen[int(i)] for i in rng.permutation(len(chosen))]


def load_pixels(samples: Iterable[Sample], side: int = INPUT_SIDE) -> Pixels:
    """Decode and preprocess; shape (n, side, side), uint8.

    Raises:
        DataError: if files cannot be read; all are tried first, so that one run names them all.
    """
    pictures, broken = [], []
    for sample in samples:
        try:
            pictures.append(np.asarray(preprocess_image(decode_file(sample.file).image, side)))
        except ImageError as error:
            broken.append(f"{sample.dataset}/{sample.file.name} ({error.reason})")
    if broken:
        raise DataError(f"Of the labelled pictures {_some(broken)} cannot be read. Copy them again, or remove their rows.")
    if not pictures:
        raise DataError("There are no labelled pictures to load.")
    return np.stack(pictures)


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


def _manifest(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, restval="")
            lacking = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
            if lacking:
                raise DataError(f"{path} lacks the column {', '.join(lacking)}. Its first line has to name {', '.join(COLUMNS)}.")
            rows = list(reader)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). Each data set is a folder with a manifest.csv.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a table of comma-separated UTF-8 text: {error}.") from None
    return rows


def _some(names: Sequence[str], shown: int = 3) -> str:
    """Return "a, b and 7 more (9 files)"."""
    rest = len(names) - shown
    return f"{', '.join(names[:shown])}{f' and {rest} more' if rest > 0 else ''} ({len(names)} files)"


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
