"""All layouts, and reading a folder in whichever it has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from export.dataset import CLASSES, Sample, selected
from export.errors import DataError
from export.layouts import augmented, class_folders, covidx, ieee8023, kermany, manifest, radiography, ten_thousand
from export.layouts.layout import Labels, Layout

LAYOUTS: tuple[Layout, ...] = (
    manifest.LAYOUT,
    radiography.LAYOUT,
    ieee8023.LAYOUT,
    covidx.LAYOUT,
    kermany.LAYOUT,
    ten_thousand.LAYOUT,
    augmented.LAYOUT,
    class_folders.LAYOUT,
)
"""The first that recognises a folder reads it, so the particular ones come first."""


def find_layout(folder: Path, name: str = "") -> Layout:
    """Return the layout of that name, or the one that a folder has.

    Raises:
        DataError: if there is no such folder, no such layout, or the folder has none.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}. Name the folder that the data set was unpacked into.")
    known = ", ".join(layout.name for layout in LAYOUTS)
    if name:
        for layout in LAYOUTS:
            if layout.name == name:
                return layout
        raise DataError(f"There is no layout {name}. Known are {known}.")
    for layout in LAYOUTS:
        if layout.recognises(folder):
            return layout
    raise DataError(
        f"{folder} has none of the layouts {known}. See docs/data.md for what each looks like, or name one with --layout."
    )


def read_all(folder: Path, layout: Layout, labels: Labels | None = None) -> list[Sample]:
    """Return every labelled picture in a folder, with the publisher's labels in this project's names.

    Raises:
        DataError: if the folder's tables cannot be used, or it has no labelled picture.
    """
    if labels and layout.name != class_folders.LAYOUT.name:
        raise DataError(f"The layout {layout.name} has labels of its own; --label is for the layout {class_folders.LAYOUT.name}.")
    samples = layout.read(folder, labels or {})
    if not any(sample.label for sample in samples):
        raise DataError(f"{folder} has no labelled picture in the layout {layout.name}. See docs/data.md for what it looks like.")
    return samples


def read_folder(folder: Path, classes: Sequence[str] = CLASSES, *, layout: str = "", labels: Labels | None = None) -> list[Sample]:
    """Return the pictures of a folder that have a label of `classes`; byte-identical files once.

    Args:
        folder: as its publisher packs it, or with a manifest.csv.
        classes: see `export.dataset.class_of`.
        layout: name of one of LAYOUTS, or empty to recognise it.
        labels: of folders whose names say nothing, for class folders.

    Raises:
        DataError: if the folder cannot be read so, files are missing, or no picture is of these classes.
    """
    chosen = find_layout(folder, layout)
    samples = read_all(folder, chosen, labels)
    kept = selected(samples, classes, folder, f"{folder.name} (layout {chosen.name})")
    if not kept:
        counts = ", ".join(f"{label} {count}" for label, count in sorted(Counter(sample.label for sample in samples).items()))
        raise DataError(f"{folder} has no picture of {', '.join(classes)}; it has {counts}. Ask for other classes.")
    return kept
