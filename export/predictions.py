"""What a network said about pictures that it had not seen: the one thing that trainings write and reports read."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from export.dataset import Sample
from export.errors import ReportError

Precision = Literal["float32", "float16", "dynamic", "int8"]
Condition = Literal["whole", "lungs_out", "centre_out", "border_only", "shape_only"]
"""What was left of the pictures: everything, or less, so that a score above chance gives a shortcut away."""


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """Which picture, and what is known of it. file: below the folder of the data set. Empty where unknown; age in years."""

    dataset: str
    file: str
    label: str
    patient: str
    source: str
    age: float | None = None
    sex: str = ""
    view: str = ""


class Predictions(msgspec.Struct, frozen=True, kw_only=True):
    """All lists are of one length, one entry a picture.

    network: name in the catalogue. protocol: such as "5-fold". grouped: whether a patient's pictures were kept on one side.
    fold: number of the model that gave the logits. logits: before temperature. temperature, threshold: of that model, from
    pictures that it has not learned from. typicality: how far the picture is from what that model has learned, as a share of its
    limit: above 1 it abstains; empty where the network has no such measure. answered: whether the device would answer, where more
    than the threshold and the typicality decides; else empty.
    """

    network: str
    classes: list[str]
    protocol: str
    grouped: bool
    precision: Precision
    condition: Condition = "whole"
    pictures: list[Picture]
    fold: list[int]
    logits: list[list[float]]
    temperature: list[float]
    threshold: list[float]
    typicality: list[float] = []
    answered: list[bool] = []

    def __post_init__(self) -> None:
        """Refuse columns of different lengths.

        Raises:
            ValueError: if they are.
        """
        columns = (
            self.fold,
            self.logits,
            self.temperature,
            self.threshold,
            self.typicality or self.fold,
            self.answered or self.fold,
        )
        if any(len(column) != len(self.pictures) for column in columns) or any(len(r) != len(self.classes) for r in self.logits):
            raise ValueError("the columns of predictions differ in length")

    def scores(self) -> npt.NDArray[np.float64]:
        """Return the logits, shape (n, classes)."""
        return np.array(self.logits, dtype=np.float64).reshape(len(self.pictures), len(self.classes))

    def truth(self) -> npt.NDArray[np.int64]:
        """Return class indexes, shape (n,); -1 where the label is none of the classes."""
        return np.array([self.classes.index(p.label) if p.label in self.classes else -1 for p in self.pictures], dtype=np.int64)

    def patients(self) -> npt.NDArray[np.str_]:
        """Return patient codes, shape (n,)."""
        return np.array([picture.patient for picture in self.pictures], dtype=np.str_)


def as_picture(sample: Sample) -> Picture:
    """Return what predictions keep of a sample."""
    return Picture(
        dataset=sample.dataset,
        file=sample.path,
        label=sample.label,
        patient=sample.patient,
        source=sample.source,
        age=sample.age,
        sex=sample.sex,
        view=sample.view,
    )


def write_predictions(file: Path, predictions: list[Predictions]) -> None:
    """Write them as one JSON file."""
    file.write_bytes(msgspec.json.encode(predictions) + b"\n")


def read_predictions(file: Path) -> list[Predictions]:
    """Read what `write_predictions` wrote.

    Raises:
        ReportError: if the file cannot be read or is not of that kind.
    """
    try:
        return msgspec.json.decode(file.read_bytes(), type=list[Predictions])
    except OSError as error:
        raise ReportError(f"{file} cannot be read ({error.strerror}). `cxr-export crossval` writes it.") from None
    except msgspec.DecodeError as error:
        raise ReportError(f"{file} does not hold predictions: {error}. Make it again with `cxr-export crossval`.") from None
