"""Sets that were augmented before they were published: P1's 912 + 912 pictures, and the larger one of the same kind.

Facts: Alqudah and Qazan, "Augmented COVID-19 X-ray Images Dataset" (Mendeley Data, doi:10.17632/2fxz4px6d8.4), has 912 pictures of
covid and 912 of others; El-Shafai and Abd El-Samie, "Extensive COVID-19 X-Ray and CT Chest Images Dataset" (Mendeley Data,
doi:10.17632/8h65ywd2jr), lies in COVID-19 Dataset/X-ray/{COVID,Non-COVID} with 4044 and 5500 X-rays, and CT slices beside them.
Patients, and which picture was made from which, are not published with either. So folders are told by their names, anything below
a folder called CT is left out, and pictures of one original are kept together:

1. by the original's name inside the file's, as common tools for augmentation write it (Augmentor: CLASS_original_NAME_UUID; Keras:
   PREFIX_INDEX_HASH; words such as _flip, _rot90, -aug2 at the end);
2. where the names of most pictures tie them to no other, by the pictures too (`export.near_duplicates`), which finds a part only.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from export.dataset import Sample, load_pixels
from export.layouts.layout import FOLDER_LABELS, Labels, Layout, folders_below, pictures_in, plain
from export.near_duplicates import AUGMENTED, near_duplicates, tied

_AUGMENTOR = re.compile(r".*_original_(?P<name>.+)_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", re.IGNORECASE)
_KERAS = re.compile(r"(?P<name>.*_\d+)_\d{1,7}$")
_WORD = re.compile(
    r"(.+?)[ _-]+(aug(mented)?|[hv]?flip(ped)?|mirror(ed)?|rot(at(e|ed|ion))?|scaled?|shear(ed)?|zoom(ed)?|noisy?|shift(ed)?|"
    r"trans(lat(e|ed|ion))?|bright(ness)?|contrast|crop(ped)?)[ _-]?\d*$",
    re.IGNORECASE,
)
_LABELS = ("covid19", "non_covid19")


def _folders(folder: Path) -> list[tuple[Path, str]]:
    found = []
    for path in folders_below(folder, 4):
        label = FOLDER_LABELS.get(plain(path.name), "")
        computed = any(plain(part) in ("ct", "ctscan", "ctscans") for part in path.relative_to(folder).parts)
        if label in _LABELS and not computed and pictures_in(path):
            found.append((path, label))
    return found


def _recognises(folder: Path) -> bool:
    return {label for _, label in _folders(folder)} == set(_LABELS)


def original_name(stem: str) -> str:
    """Return the name of the picture that a file was made from, or the file's own without its ending."""
    match = _AUGMENTOR.match(stem) or _KERAS.match(stem)
    name = Path(match["name"]).stem if match else stem
    while word := _WORD.match(name):
        name = word[1]
    return name.lower()


def _read(folder: Path, _labels: Labels) -> list[Sample]:
    files = [(file, label) for path, label in _folders(folder) for file in pictures_in(path)]
    names = [f"{label}:{original_name(file.stem)}" for file, label in files]
    samples = [
        Sample(
            file=file,
            label=label,
            patient=f"augmented:{name}",
            source="unnamed",
            dataset="augmented",
            finding=file.parent.name,
            patient_known=False,
        )
        for (file, label), name in zip(files, names, strict=True)
    ]
    counts = Counter(names)
    telling = sum(count for count in counts.values() if count > 1)
    return samples if 2 * telling >= len(samples) else tied(samples, near_duplicates(load_pixels(samples), (AUGMENTED,)))


LAYOUT = Layout(
    name="augmented",
    title="pictures that were augmented before they were published (P1)",
    patients="not published: pictures that were made from one original are kept together, as far as names or pictures show it",
    recognises=_recognises,
    read=_read,
)
