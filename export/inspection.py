"""What is in a data set: counts, people, what cannot be read, and copies that a split by patient would not see."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from export.dataset import Sample, readable_pixels
from export.errors import DataError
from export.layouts.layout import Layout
from export.near_duplicates import COPIED, RECROPPED, across_patients

_SHOWN = 10


class Copy(msgspec.Struct, frozen=True):
    """Two files that show one exposure under two patient codes; likeness as in `export.near_duplicates`."""

    first: str
    second: str
    likeness: float


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of pictures where nothing else is said.

    patients: codes. patients_known: codes of persons; the others are of single pictures, or of pictures that belong together.
    largest_group: most pictures of one code. ages: the numbers that are given, in order. identical: files whose bytes another has
    too, of which training takes one. sha256: over the sorted list of files and their SHA-256.
    """

    layout: str
    title: str
    patients_note: str
    pictures: int
    labels: dict[str, int]
    patients_by_label: dict[str, int]
    patients: int
    patients_known: int
    largest_group: int
    sources: dict[str, int]
    views: dict[str, int]
    sexes: dict[str, int]
    groups: dict[str, int]
    ages: list[float]
    lung_masks: int
    missing: list[str]
    unreadable: list[str]
    identical: int
    copies: list[Copy]
    sha256: str


def inspect(folder: Path, layout: Layout, samples: Sequence[Sample], *, thorough: bool = False) -> Inspection:
    """Look at every file of a data set.

    Args:
        folder: of the set.
        layout: that it was read in.
        samples: all of them, whatever their label.
        thorough: also look for copies that were cropped anew.
    """
    named = [sample for sample in samples if sample.label]
    missing = [_name(sample.file, folder) for sample in named if not sample.file.is_file()]
    there = [sample for sample in named if sample.file.is_file()]
    digests = {_name(sample.file, folder): hashlib.sha256(sample.file.read_bytes()).hexdigest() for sample in there}
    pixels, whole, unreadable = readable_pixels(there)
    codes = Counter(sample.patient for sample in named)
    return Inspection(
        layout=layout.name,
        title=layout.title,
        patients_note=layout.patients,
        pictures=len(named),
        labels=_counts(sample.label for sample in named),
        patients_by_label={
            label: len({sample.patient for sample in named if sample.label == label})
            for label in sorted({sample.label for sample in named})
        },
        patients=len(codes),
        patients_known=len({sample.patient for sample in named if sample.patient_known}),
        largest_group=max(codes.values(), default=0),
        sources=_counts(sample.source for sample in named),
        views=_counts(sample.view for sample in named),
        sexes=_counts(sample.sex for sample in named),
        groups=_counts(sample.group for sample in named),
        ages=sorted(sample.age for sample in named if sample.age is not None),
        lung_masks=sum(sample.lung_mask is not None for sample in named),
        missing=missing,
        unreadable=unreadable,
        identical=len(digests) - len(set(digests.values())),
        copies=[
            Copy(_name(whole[pair.first].file, folder), _name(whole[pair.second].file, folder), pair.likeness)
            for pair in across_patients(whole, pixels, (COPIED, RECROPPED) if thorough else (COPIED,))
        ],
        sha256=hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())).encode()).hexdigest(),
    )


def lines(found: Inspection) -> Iterator[str]:
    """Yield what a person reads."""
    yield f"layout      {found.layout}: {found.title}"
    yield f"patients    {found.patients_note}"
    yield f"            {found.patients} codes, {found.patients_known} of them persons; one has {found.largest_group} pictures"
    yield f"pictures    {found.pictures}; {found.lung_masks} with a lung mask; {found.identical} byte for byte another one"
    for label, count in found.labels.items():
        yield f"  {label:<16} {count:>6} pictures  {found.patients_by_label[label]:>6} codes"
    for name, counts in (("sources", found.sources), ("views", found.views), ("sexes", found.sexes), ("people", found.groups)):
        yield f"{name:<11} " + ", ".join(f"{key or 'not given'} {count}" for key, count in counts.items())
    yield f"ages        {_ages(found)}"
    yield f"missing     {_list(found.missing)}"
    yield f"unreadable  {_list(found.unreadable)}"
    copies = [f"{copy.first} and {copy.second} ({copy.likeness:.2f})" for copy in found.copies]
    yield f"near duplicates of two patients: {_list(copies)}"
    yield f"sha-256     {found.sha256}"


def require_sound(found: Inspection, expected: str = "") -> None:
    """Return if every file is there and can be read, more than one code has pictures, and the set is the one expected.

    Raises:
        DataError: if not.
    """
    if found.missing:
        raise DataError(f"{len(found.missing)} files are not there, such as {found.missing[0]}. Copy the set whole.")
    if found.unreadable:
        raise DataError(f"{len(found.unreadable)} files cannot be read, such as {found.unreadable[0]}. Copy them again.")
    if found.patients < 2:
        raise DataError(f"All {found.pictures} pictures are of one patient. Add patients, or check the patient codes.")
    if expected and expected.lower() != found.sha256:
        raise DataError(f"The set's SHA-256 is {found.sha256}, not {expected}. It is another release, or files were changed.")


def _name(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else str(file)


def _counts(values: Iterator[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def _ages(found: Inspection) -> str:
    if not found.ages:
        return "not given"
    low, middle, high = (f"{value:g}" for value in np.percentile(found.ages, [0, 50, 100]))
    return f"{low} to {high} years, half below {middle}; {found.pictures - len(found.ages)} not given"


def _list(names: Sequence[str]) -> str:
    if not names:
        return "none"
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)}: {'; '.join(names[:_SHOWN])}{rest}"
