"""P5's set, "COVID-19 Patients Lungs X Ray Images 10000" (Kaggle, nabeelsajid917/covid-19-x-ray-10000-images).

Facts: code that reads it opens dataset/covid/ and dataset/normal/ and counts 70 and 28 pictures; the name promises more. P5 itself
speaks of 1441 + 360 pictures, so it used another copy, or augmented this one. The publisher names neither patients nor sources.
"""

from __future__ import annotations

from pathlib import Path

from export.dataset import Sample
from export.layouts.layout import Labels, Layout, alone, pictures_in

_CLASSES = {"covid": "covid19", "normal": "normal"}


def _recognises(folder: Path) -> bool:
    return all((folder / "dataset" / name).is_dir() for name in _CLASSES)


def _read(folder: Path, _labels: Labels) -> list[Sample]:
    return [
        Sample(
            file=file,
            label=label,
            patient=alone("ten-thousand", folder, file),
            source="unnamed",
            dataset="ten-thousand",
            finding=name,
            patient_known=False,
        )
        for name, label in _CLASSES.items()
        for file in pictures_in(folder / "dataset" / name)
    ]


LAYOUT = Layout(
    name="ten-thousand",
    title="COVID-19 Patients Lungs X Ray Images 10000",
    patients="not published: each picture counts as a person of its own",
    recognises=_recognises,
    read=_read,
)
