"""A folder with a manifest.csv: this project's own layout, which the other layouts can be turned into."""

from __future__ import annotations

from pathlib import Path

from export.dataset import Sample, read_manifest
from export.layouts.layout import Labels, Layout

NAME = "manifest.csv"


def _recognises(folder: Path) -> bool:
    return (folder / NAME).is_file()


def _read(folder: Path, _labels: Labels) -> list[Sample]:
    return read_manifest(folder / NAME)


LAYOUT = Layout(
    name="manifest",
    title="a folder with a manifest.csv",
    patients="the column patient; the column patient_known says `no` where it is no person",
    recognises=_recognises,
    read=_read,
)
