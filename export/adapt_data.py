"""A hospital's labelled pictures, read, checked and dealt out by patient before any of them shapes a bundle."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from edge.errors import ImageError, Refused
from edge.pixels.decode import decode_file
from edge.pixels.preprocess import preprocess_image
from edge.pixels.quality import check_quality
from export.calibrate import SENSITIVITIES
from export.dataset import Pixels, Sample, patients, selected, some
from export.errors import DataError
from export.layouts.registry import find_layout, read_all
from export.requirements import require_bundle_classes, require_people
from export.splits import deal

Mode = Literal["recalibrate", "fine-tune"]

FEWEST = round(1 / (1 - max(SENSITIVITIES)))
"""Patients of each class that the calibration and the test part need: 20.

A threshold that may miss 5% of a class is no more than the lowest value seen while 1 in n is more than 5%. And if all of n test
patients come out right, the exact 95% interval (Clopper and Pearson 1934) still begins at 0.83 for n = 20: with fewer, the table
cannot tell a good network from a mediocre one.
"""

_HANDS: dict[Mode, tuple[str, ...]] = {
    "recalibrate": ("calibration", "test"),
    "fine-tune": ("training", "training", "calibration", "test"),
}
"""What each equal share of the patients is for."""


@dataclass(frozen=True)
class Part:
    """Some of the pictures. pixels: shape (n, side, side), uint8."""

    samples: list[Sample]
    pixels: Pixels

    @property
    def labels(self) -> npt.NDArray[np.str_]:
        """Names of classes, shape (n,)."""
        return np.array([sample.label for sample in self.samples], dtype=np.str_)

    @property
    def patients(self) -> npt.NDArray[np.str_]:
        """Codes of patients, shape (n,)."""
        return patients(self.samples)


@dataclass(frozen=True)
class Hospital:
    """All that is known of the pictures. parts: by name; no patient is in two.

    name: of the folder. layout: that it was read in. sha256: over what the files and labels are. refused: reason code -> how many
    pictures the device would refuse; they are in no part. people: whether the patient codes are those of persons.
    children: how many pictures are said to be of children.
    """

    name: str
    layout: str
    sha256: str
    refused: dict[str, int]
    people: bool
    children: int
    parts: dict[str, Part]


def read_hospital(
    folder: Path,
    classes: Sequence[str],
    mode: Mode,
    *,
    side: int,
    layout: str = "",
    labels: Mapping[str, str] | None = None,
    without: Sequence[str] = (),
    fewest: int = FEWEST,
    seed: int = 0,
) -> Hospital:
    """Read, check and deal out a folder.

    Args:
        folder: in any of the layouts of `export.layouts`.
        classes: of the bundle.
        mode: what the parts are for.
        side: pixels on a side of the network's input.
        layout: name of the layout; empty to recognise it.
        labels: of class folders whose names say nothing.
        without: classes of which the hospital has no picture.
        fewest: patients of each class in the calibration and in the test part.
        seed: of who goes where.

    Raises:
        DataError: if labels are none of the bundle's, a class is empty or has too few patients, or files are missing or corrupt.
    """
    chosen = find_layout(folder, layout)
    every = read_all(folder, chosen, dict(labels or {}))
    require_bundle_classes([sample.label for sample in every if sample.label], classes)
    _require_all(every, classes, without)
    samples = selected(every, classes, folder, f"{folder.name} (layout {chosen.name})")
    require_people(samples)
    _dealt(samples, mode, seed, fewest)
    samples, pixels, refused = _look(samples, side)
    # Without those that the device refuses, again: nothing but the pictures that count may decide who goes where.
    hands = _dealt(samples, mode, seed, fewest)
    parts = {}
    for name in dict.fromkeys(_HANDS[mode]):
        places = np.flatnonzero([_HANDS[mode][hand] == name for hand in hands])
        parts[name] = Part([samples[int(place)] for place in places], pixels[places])
    return Hospital(
        name=folder.resolve().name,
        layout=chosen.name,
        sha256=_digest(samples),
        refused=refused,
        people=all(sample.patient_known for sample in samples),
        children=sum(sample.group == "child" for sample in samples),
        parts=parts,
    )


def _require_all(samples: Sequence[Sample], classes: Sequence[str], without: Sequence[str]) -> None:
    strange = [name for name in without if name not in classes]
    if strange:
        raise DataError(f"--without names {', '.join(strange)}, and the bundle knows {', '.join(classes)}.")
    counts = Counter(sample.label for sample in samples)
    there = [name for name in without if counts[name]]
    if there:
        raise DataError(f"--without names {there[0]}, and {counts[there[0]]} pictures have that label. Leave the option out.")
    empty = [name for name in classes if not counts[name] and name not in without]
    if empty:
        raise DataError(
            f"There is no picture of {' and none of '.join(empty)}. "
            f"Check the labels; if the hospital has none, say so: {' '.join(f'--without {name}' for name in empty)}."
        )
    if len(classes) - len(set(without)) < 2:
        raise DataError("Pictures of one class alone cannot say how well classes are told apart. Add pictures of another.")


def _dealt(samples: Sequence[Sample], mode: Mode, seed: int, fewest: int) -> list[int]:
    """Return the share that each sample is in."""
    names = _HANDS[mode]
    hands = [int(hand) for hand in deal(samples, len(names), seed)]
    for label in sorted({sample.label for sample in samples}):
        people = {sample.patient for sample in samples if sample.label == label}
        for part in ("calibration", "test"):
            held = {s.patient for s, hand in zip(samples, hands, strict=True) if s.label == label and names[hand] == part}
            if len(held) < fewest:
                raise DataError(
                    f"The class {label} has pictures of {len(people)} patients, {len(held)} of them in the {part} part, "
                    f"which needs {fewest} "
                    f"(docs/adapt.md says why). Add patients: {mode} takes about {fewest * len(names)} of each class."
                )
    return hands


def _look(samples: Sequence[Sample], side: int) -> tuple[list[Sample], Pixels, dict[str, int]]:
    """Return the pictures that the device would answer, as it sees them, and how many it refuses, by reason."""
    kept, pixels, broken, refused = [], [], [], Counter[str]()
    for sample in samples:
        try:
            picture = decode_file(sample.file)
            check_quality(picture)
        except Refused as error:
            refused[error.reason] += 1
        except ImageError as error:
            broken.append(f"{sample.path} ({error.reason})")
        else:
            kept.append(sample)
            pixels.append(np.asarray(preprocess_image(picture.image, side)))
    if broken:
        raise DataError(f"Of the labelled pictures {some(broken)} cannot be read. Copy them again, or remove their rows.")
    if not kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in refused.items())
        raise DataError(f"The device would accept none of the labelled pictures ({reasons}).")
    return kept, np.stack(pixels), dict(sorted(refused.items()))


def _digest(samples: Sequence[Sample]) -> str:
    lines = sorted(f"{hashlib.sha256(sample.file.read_bytes()).hexdigest()} {sample.label}" for sample in samples)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
