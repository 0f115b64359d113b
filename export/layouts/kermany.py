"""Kermany et al., "Chest X-Ray Images (Pneumonia)": children of one to five years in Guangzhou, anterior-posterior.

Facts: the description on the publisher's page (Mendeley Data, doi:10.17632/rscbjbr9sj) and the copy on Kaggle
(paultimothymooney/chest-xray-pneumonia): chest_xray/{train,val,test}/{NORMAL,PNEUMONIA}/; copies of it are nested once more
(chest_xray/chest_xray). File names: person1946_bacteria_4874.jpeg, IM-0115-0001.jpeg, NORMAL2-IM-1427-0001.jpeg in the first
release; BACTERIA-1008087-0001.jpeg, NORMAL-1003233-0001.jpeg (disease, patient, number of the picture) in the later ones. That
`person` and `IM` number patients is what their repetition shows; numbers are kept apart for the two classes.
"""

from __future__ import annotations

import re
from pathlib import Path

from export.dataset import Sample
from export.layouts.layout import Labels, Layout, alone, pictures_in, plain

_PARTS = ("train", "val", "test")
_LABELS = {"normal": "normal", "pneumonia": "pneumonia"}
_NAMES = (
    re.compile(r"(?P<patient>person\d+)_(?P<finding>bacteria|virus)_\d+$", re.IGNORECASE),
    re.compile(r"(?P<patient>(?P<finding>BACTERIA|VIRUS|NORMAL)-\d+)-\d+$", re.IGNORECASE),
    re.compile(r"(?P<patient>(?:NORMAL2-)?IM-\d+)-\d+(?:-\d+)?$", re.IGNORECASE),
)


def _root(folder: Path) -> Path | None:
    for root in (folder, folder / "chest_xray"):
        if any((root / part / "PNEUMONIA").is_dir() and (root / part / "NORMAL").is_dir() for part in _PARTS):
            return root
    return None


def _recognises(folder: Path) -> bool:
    root = _root(folder)
    if root is None:
        return False
    return any(_match(file) for part in _PARTS for file in pictures_in(root / part / "PNEUMONIA")[:20])


def _match(file: Path) -> re.Match[str] | None:
    return next((match for name in _NAMES if (match := name.match(file.stem))), None)


def _read(folder: Path, _labels: Labels) -> list[Sample]:
    root = _root(folder) or folder
    samples = []
    for part in _PARTS:
        for name in ("NORMAL", "PNEUMONIA"):
            for file in pictures_in(root / part / name):
                match = _match(file)
                groups = match.groupdict() if match else {}
                samples.append(
                    Sample(
                        file=file,
                        label=_LABELS[plain(name)],
                        patient=f"kermany:{name.lower()}:{groups['patient'].lower()}" if match else alone("kermany", folder, file),
                        source="kermany",
                        dataset="kermany",
                        view="AP",
                        finding=(groups.get("finding") or name).lower(),
                        group="child",
                        patient_known=match is not None,
                    )
                )
    return samples


LAYOUT = Layout(
    name="kermany",
    title="Chest X-Ray Images (Pneumonia), Kermany et al.; children",
    patients="from the file names",
    recognises=_recognises,
    read=_read,
)
