"""What a report reads beside `export.predictions`: each part is a JSON file, each may be missing, and none is ever made up."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from export.errors import ReportError

Share = Annotated[float, Meta(ge=0.0, le=1.0)]


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A figure and the bounds of its 95% interval."""

    value: float
    low: float
    high: float


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a kind of heat lies inside the lung masks. lung_area: the share that evenly spread heat would have there."""

    network: str
    method: str
    heat_in_lungs: Span
    lung_area: Share
    pictures: int
    patients: int


class HeatMap(msgspec.Struct, frozen=True, kw_only=True):
    """Where a network looked. values: rows of any size that cover the picture. method: as in `Explained`."""

    network: str
    method: str
    values: list[list[float]]


class SamplePicture(msgspec.Struct, frozen=True, kw_only=True):
    """One picture with its answer. picture: a gray PNG, base64 in JSON. probabilities: after temperature, by class."""

    picture: bytes
    dataset: str
    label: str
    answer: str
    abstained: bool
    probabilities: dict[str, float]
    heat: list[HeatMap]


class CardTexts(msgspec.Struct, frozen=True, kw_only=True):
    """The words around a network. notes: which pictures the figures are from, and which of them it has seen."""

    name: str
    intended_use: str
    must_not: list[str]
    trained_on: list[str]
    licence: str
    limits: list[str]
    facts: dict[str, str] = {}
    notes: list[str] = []


T = TypeVar("T")


def read_part(file: Path, kind: type[T], maker: str) -> T:
    """Read one JSON file.

    Args:
        file: where.
        kind: of what it holds, such as list[Epoch].
        maker: what writes such a file, for the sentence that says so.

    Raises:
        ReportError: if it cannot be read or holds something else.
    """
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except OSError as error:
        raise ReportError(f"{file} cannot be read ({error.strerror}). {maker} writes it; or leave the option out.") from None
    except msgspec.DecodeError as error:
        raise ReportError(f"{file} is not what {maker} writes: {error}.") from None
