"""Writing a manifest.csv, which `export.dataset` reads."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from export.dataset import COLUMNS, FACTS, Sample


def write_manifest(path: Path, samples: Sequence[Sample]) -> None:
    """Write a row for each sample. Files below the manifest's folder are named from there, others by their whole path."""
    folder = path.parent.resolve()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*COLUMNS, *FACTS])
        for sample in samples:
            writer.writerow(
                [
                    _named(sample.file, folder),
                    sample.label,
                    sample.patient,
                    sample.source,
                    _named(sample.lung_mask, folder) if sample.lung_mask else "",
                    "" if sample.age is None else f"{sample.age:g}",
                    sample.sex,
                    sample.view,
                    sample.finding,
                    sample.group,
                    "yes" if sample.patient_known else "no",
                ]
            )


def _named(path: Path, folder: Path) -> str:
    whole = path.resolve()
    return whole.relative_to(folder).as_posix() if whole.is_relative_to(folder) else str(whole)
