"""Folders named for a class, with pictures in them, anywhere below a folder: train/covid/, dataset/normal/, Viral Pneumonia/ ..."""

from __future__ import annotations

from pathlib import Path

from export.dataset import Sample
from export.errors import DataError
from export.layouts.layout import FOLDER_LABELS, Labels, Layout, alone, folders_below, pictures_in, plain


def _recognises(folder: Path) -> bool:
    named = {FOLDER_LABELS[plain(path.name)] for path in folders_below(folder) if plain(path.name) in FOLDER_LABELS}
    return len(named) >= 2


def _read(folder: Path, labels: Labels) -> list[Sample]:
    given = {plain(name): label for name, label in labels.items()}
    known = {**FOLDER_LABELS, **given}
    holding = {path: found for path in (folder, *folders_below(folder)) if (found := pictures_in(path))}
    strange = sorted({path.name for path in holding if plain(path.name) not in known})
    if strange:
        raise DataError(
            f"The folder {', '.join(strange)} in {folder} has pictures and is named for no class. "
            f"Say what they are with --label '{strange[0]}=normal', or leave them out with --label '{strange[0]}='."
        )
    unused = sorted(set(given) - {plain(path.name) for path in holding})
    if unused:
        raise DataError(f"--label names {', '.join(unused)}, and {folder} has no folder of that name with pictures.")
    name = folder.resolve().name
    return [
        Sample(
            file=file,
            label=known[plain(path.name)],
            patient=alone(name, folder, file),
            source=name,
            dataset=name,
            finding=path.name,
            patient_known=False,
        )
        for path, files in holding.items()
        for file in files
        if known[plain(path.name)]
    ]


LAYOUT = Layout(
    name="class-folders",
    title="folders named for a class",
    patients="not known: each picture counts as a person of its own",
    recognises=_recognises,
    read=_read,
)
