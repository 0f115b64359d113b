"""The labelled X-rays: manifests, and pixels by the same decoding and preprocessing as on the device."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge.errors import ImageError
from edge.pixels.decode import decode_file
from edge.pixels.preprocess import INPUT_SIDE, centre_square, preprocess_image
from export.errors import DataError

CLASSES = ("normal", "pneumonia", "covid19")
"""Of the shipped network, in the order of its outputs. Labels that belong to none of the classes asked for are left out."""

TWO_CLASSES = ("normal", "covid19")
"""P2's and P5's."""
FOUR_CLASSES = ("normal", "pneumonia", "covid19", "lung_opacity")
"""P4's."""
REST = "non_"
"""A class of this prefix and the name of a label takes every other label: `non_covid19` is P1's second class."""

Pixels = npt.NDArray[np.uint8]
"""Shape (n, INPUT_SIDE, INPUT_SIDE), network inputs."""


COLUMNS = ("file", "label", "patient", "source", "lung_mask")
"""Of a manifest."""
FACTS = ("age", "sex", "view", "finding", "group", "patient_known")
"""Columns that may stand beside them; others are left alone."""


ADULT = 18
OLDEST = 130
"""Years. NIH's ages go up to 414: those are typing errors."""


class Facts(TypedDict):
    """The part of a `Sample` that is no more than known or unknown."""

    age: float | None
    sex: str
    view: str
    finding: str
    group: str
    patient_known: bool


@dataclass(frozen=True)
class Sample:
    """One labelled X-ray.

    Attributes:
        file: path of the picture.
        label: one of the classes that were asked for.
        patient: code of the patient, the same in every data set. Where the publisher names no patients, of pictures that belong
            together (the file alone, or an original and its augmented copies): splits keep them on one side.
        source: where the publisher of the set took the picture from; what a network must not learn.
        dataset: name of the folder.
        lung_mask: path of a mask of the lungs, of the picture's shape, or None.
        age: in years, or None where unknown.
        sex: F, M or O, empty where unknown.
        view: projection, such as PA, AP or AP SUPINE, empty where unknown.
        finding: the publisher's own words, which may say more than the label; empty where there are none.
        group: child or adult, empty where unknown.
        patient_known: whether `patient` is a person; if not, a grouped split may still part the pictures of one.
    """

    file: Path
    label: str
    patient: str
    source: str
    dataset: str
    lung_mask: Path | None = None
    age: float | None = None
    sex: str = ""
    view: str = ""
    finding: str = ""
    group: str = ""
    patient_known: bool = True

    @property
    def path(self) -> str:
        """Path below the folder of the data set, with `/` between the parts."""
        parts = self.file.parts
        folders = [place for place, part in enumerate(parts[:-1]) if part == self.dataset]
        return "/".join(parts[folders[-1] + 1 :]) if folders else self.file.name

    @property
    def key(self) -> str:
        """DATASET/PATH, what a picture is called in files that outlive a training."""
        return f"{self.dataset}/{self.path}"


def read_dataset(data: Path, name: str, classes: Sequence[str] = CLASSES) -> list[Sample]:
    """Return the samples of one data set that have a label of `classes`, in the order of the manifest; byte-identical files once.

    Raises:
        DataError: if there is no such data set, its manifest lacks a column, or files that it names are not there.
    """
    folder = data / name
    return selected(read_manifest(folder / "manifest.csv"), classes, folder, f"{name}/manifest.csv")


def read_manifest(path: Path) -> list[Sample]:
    """Return a sample for each row of a manifest, whatever its label. Files are named from the manifest's folder.

    Raises:
        DataError: if it cannot be read or lacks a column.
    """
    folder = path.parent
    return [
        Sample(
            file=folder / row["file"],
            label=row["label"],
            patient=row["patient"],
            source=row["source"],
            dataset=folder.resolve().name,
            lung_mask=folder / row["lung_mask"] if row["lung_mask"] else None,
            **facts(row),
        )
        for row in _manifest(path)
    ]


def selected(samples: Sequence[Sample], classes: Sequence[str], folder: Path, table: str) -> list[Sample]:
    """Return the samples that have a label of `classes`, in their order; byte-identical files once.

    Args:
        samples: of one data set.
        classes: each sample gets the name of its own.
        folder: of the data set; errors name files from there.
        table: what names the files, for errors.

    Raises:
        DataError: if files are not there.
    """
    chosen = [replace(sample, label=class_of(sample.label, classes)) for sample in samples if class_of(sample.label, classes)]
    named = [path for sample in chosen for path in (sample.file, sample.lung_mask) if path is not None]
    missing = [str(path.relative_to(folder) if path.is_relative_to(folder) else path) for path in named if not path.is_file()]
    if missing:
        raise DataError(f"{table} names {some(missing)} that are not there. Copy the set whole, or remove their rows.")
    return _without_twins(chosen)


def class_of(label: str, classes: Sequence[str]) -> str:
    """Return which of `classes` takes the label, or an empty string if none does."""
    if label in classes or not label:
        return label
    return next((name for name in classes if name.startswith(REST) and label != name.removeprefix(REST)), "")


def facts(row: Mapping[str, str]) -> Facts:
    """Return what a row of text says beside the label. A value that makes no sense counts as unknown.

    Args:
        row: values of the columns FACTS, any of which may be missing. An age is a number of years, or `child` or `adult`.
    """
    written = row.get("age", "").strip()
    age = _years(written)
    grown = "" if age is None else "adult" if age >= ADULT else "child"
    sex = row.get("sex", "").strip().upper()[:1]
    return Facts(
        age=age,
        sex=sex if sex in ("F", "M", "O") else "",
        view=" ".join(row.get("view", "").upper().split()),
        finding=row.get("finding", "").strip(),
        group=row.get("group", "").strip().lower() or grown or (written.lower() if written.lower() in ("child", "adult") else ""),
        patient_known=row.get("patient_known", "").strip().lower() not in ("no", "false", "0"),
    )


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


def load_pixels(samples: Iterable[Sample], side: int = INPUT_SIDE, store: Path | None = None) -> Pixels:
    """Decode and preprocess; shape (n, side, side), uint8.

    Args:
        samples: at least one.
        side: pixels on a side.
        store: a file (.npy) to map the result from, for sets that are larger than memory; None keeps it in memory.

    Raises:
        DataError: if files cannot be read; all are tried first, so that one run names them all.
    """
    wanted = list(samples)
    if not wanted:
        raise DataError("There are no labelled pictures to load.")
    pixels, _, broken = readable_pixels(wanted, side, store)
    if broken:
        raise DataError(f"Of the labelled pictures {some(broken)} cannot be read. Copy them again, or remove their rows.")
    return pixels


def readable_pixels(
    samples: Sequence[Sample], side: int = INPUT_SIDE, store: Path | None = None
) -> tuple[Pixels, list[Sample], list[str]]:
    """Decode and preprocess what can be read; `side` and `store` as for `load_pixels`.

    Returns:
        Pictures, shape (n, side, side), uint8; their samples; and the files that cannot be read, each with its reason.
    """
    shape = (len(samples), side, side)
    pictures = np.empty(shape, np.uint8) if store is None else np.lib.format.open_memmap(store, "w+", np.uint8, shape)
    whole: list[Sample] = []
    broken: list[str] = []
    for sample in samples:
        try:
            pictures[len(whole)] = np.asarray(preprocess_image(decode_file(sample.file).image, side))
            whole.append(sample)
        except ImageError as error:
            broken.append(f"{sample.dataset}/{sample.file.name} ({error.reason})")
    return pictures[: len(whole)], whole, broken


def load_lungs(samples: Iterable[Sample]) -> npt.NDArray[np.bool_]:
    """Return where the lungs are in the network inputs; shape (n, INPUT_SIDE, INPUT_SIDE).

    Raises:
        ValueError: if a sample has no mask.
    """
    return np.stack([_lungs(sample) for sample in samples])


def targets(samples: Sequence[Sample], classes: Sequence[str] = CLASSES) -> npt.NDArray[np.int64]:
    """Return indexes into `classes`; shape (n,).

    Raises:
        DataError: if a label is none of them.
    """
    strange = sorted({sample.label for sample in samples} - set(classes))
    if strange:
        raise DataError(f"The label {', '.join(strange)} is none of the classes {', '.join(classes)}. Ask for other classes.")
    index = {name: number for number, name in enumerate(classes)}
    return np.array([index[sample.label] for sample in samples], dtype=np.int64)


def patients(samples: Sequence[Sample]) -> npt.NDArray[np.str_]:
    """Return patient codes; shape (n,)."""
    return np.array([sample.patient for sample in samples], dtype=np.str_)


def _years(text: str) -> float | None:
    try:
        years = float(text)
    except ValueError:
        return None
    return years if 0 <= years <= OLDEST else None


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


def some(names: Sequence[str], shown: int = 3) -> str:
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
