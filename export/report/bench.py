"""What the stages of a report have in common: pictures with a split, and what they gather."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from edge.network.bundle import Bundle
from export.compress.rows import Table
from export.dataset import CLASSES, Pixels, Sample, load_pixels, read_dataset
from export.errors import ReportError
from export.history import Epoch
from export.metrics import Floats
from export.predictions import Precision, Predictions, as_picture
from export.report.inputs import Explained, SamplePicture
from export.requirements import require_trainable
from export.splits import Indexes, Split, patient_folds

HELD_OUT = "held-out patients"
SETS = ("darkcovid", "ieee8023")
"""Whose folds the shipped bundle is one of."""
_FOLDS, _SPLIT_SEED = 5, 7
"""As in `export.chest`, which makes the shipped bundle."""


@dataclass(frozen=True)
class Bench:
    """What a stage works with.

    data: folder of the sets. folder: of the bundle. samples, pixels: of SETS, in one order. split: what the bundle has learned from
    and what not. say: receives progress lines.
    """

    data: Path
    folder: Path
    bundle: Bundle
    samples: list[Sample]
    pixels: Pixels
    split: Split
    say: Callable[[str], None]

    def chosen(self, indexes: Indexes) -> list[Sample]:
        """Return samples by their places."""
        return [self.samples[int(place)] for place in indexes]


@dataclass
class Gathered:
    """What the stages have found so far; `export.report.page.Parts` in the making."""

    predictions: list[Predictions] = field(default_factory=list)
    histories: dict[str, list[Epoch]] = field(default_factory=dict)
    compression: list[Table] = field(default_factory=list)
    explained: list[Explained] = field(default_factory=list)
    samples: list[SamplePicture] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


Stage = Callable[[Bench, Gathered], None]
"""One part of a report: it may train, it adds what it found, and it never looks at test pictures to choose anything."""


def make_bench(data: Path, folder: Path, bundle: Bundle, say: Callable[[str], None]) -> Bench:
    """Return the pictures and the split of a bundle that `cxr-export chest` has made.

    Raises:
        DataError: if the sets cannot be used.
        ReportError: if the bundle's own report does not fit that split: then nobody knows which pictures it has not seen.
    """
    if tuple(bundle.manifest.classes) != CLASSES:
        raise ReportError(
            f"The bundle in {folder} knows {', '.join(bundle.manifest.classes)}; the quick report is made for {', '.join(CLASSES)}."
        )
    samples = [sample for name in SETS for sample in read_dataset(data, name)]
    require_trainable(samples, CLASSES, _FOLDS)
    split = shipped_split(folder, samples)
    return Bench(data, folder, bundle, samples, load_pixels(samples, bundle.manifest.input_side), split, say)


def shipped_split(folder: Path, samples: list[Sample]) -> Split:
    """Return the split by which the bundle in `folder` was trained; its test part is what it has not seen.

    Raises:
        ReportError: if the counts in the bundle's report.json are not those of that split.
    """
    try:
        report = msgspec.json.decode((folder / "report.json").read_bytes())
        fold = int(report["shipped"]["fold"])
        told = tuple(int(report["shipped"]["test"]["accuracy"][name]) for name in ("pictures", "patients"))
    except (OSError, msgspec.DecodeError, KeyError, TypeError, ValueError):
        raise ReportError(
            f"{folder}/report.json does not say which pictures its network was trained on, so none can be called unseen. "
            "Use a bundle of `cxr-export chest`, or `cxr-export evaluate --external` with pictures that you know it has not seen."
        ) from None
    split = patient_folds(samples, folds=_FOLDS, seed=_SPLIT_SEED)[min(fold, _FOLDS - 1)]
    found = (len(split.test), len({samples[int(place)].patient for place in split.test}))
    if told != found:
        raise ReportError(
            f"The bundle in {folder} was tested on {told[0]} pictures of {told[1]} patients, the same fold of this data "
            f"has {found[0]} of {found[1]}. It is not known which of these it has seen. Give the data that it was made from."
        )
    return split


def predictions_of(
    network: str,
    samples: list[Sample],
    logits: Floats,
    *,
    precision: Precision,
    temperature: float,
    threshold: float,
    protocol: str = HELD_OUT,
    grouped: bool = True,
    fold: list[int] | None = None,
) -> Predictions:
    """Return the predictions of whole pictures by one model."""
    return Predictions(
        network=network,
        classes=list(CLASSES),
        protocol=protocol,
        grouped=grouped,
        precision=precision,
        pictures=[as_picture(sample) for sample in samples],
        fold=fold or [0] * len(samples),
        logits=np.round(logits, 5).tolist(),
        temperature=[temperature] * len(samples),
        threshold=[threshold] * len(samples),
    )
