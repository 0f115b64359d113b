"""COVIDx (COVID-Net): lists of pictures beside folders of them.

Facts: docs/COVIDx.md and labels/ of the publisher's repository (github.com/lindawangg/COVID-Net). A line is
`patient file label [source]`; labels are normal, pneumonia, COVID-19 in the A lists, positive and negative in the B lists; the
source is missing up to version 6. Lists are named train.txt, train_COVIDx8A.txt, test_COVIDx_CXR-3A.txt ..., pictures lie in
train/, val/ and test/ (competition_test/ in one release on Kaggle).
"""

from __future__ import annotations

import re
from pathlib import Path

from export.dataset import Sample
from export.errors import DataError
from export.layouts.layout import Labels, Layout, read_text

_LIST = re.compile(r"(train|val|test)(_.*)?\.txt$", re.IGNORECASE)
_PARTS = ("train", "val", "test")
_PLACES = ("{part}", "data/{part}", "competition_{part}", "images", "")
_LABELS = {
    "normal": "normal",
    "pneumonia": "pneumonia",
    "covid-19": "covid19",
    "positive": "covid19",
    "negative": "non_covid19",
}
_LINE = re.compile(r"(?P<patient>\S+) (?P<file>.+\.\w+) (?P<label>\S+)(?: (?P<source>\S+))?$")
_COHEN = re.compile(r"\d+[a-z]?$")
"""Patient numbers of the ieee8023 collection, in lists that name no source."""


def _lists(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {part: [] for part in _PARTS}
    for place in (folder, folder / "labels"):
        if place.is_dir():
            for path in sorted(place.iterdir()):
                if path.is_file() and (match := _LIST.match(path.name)):
                    found[match[1].lower()].append(path)
    return found


def _recognises(folder: Path) -> bool:
    for path in (path for paths in _lists(folder).values() for path in paths):
        with path.open("rb") as file:
            match = _LINE.match(file.readline(1000).decode("utf-8", "replace").strip())
        if match and match["label"].lower() in _LABELS:
            return True
    return False


def _read(folder: Path, _labels: Labels) -> list[Sample]:
    samples = []
    for part, lists in _lists(folder).items():
        if len(lists) > 1:
            names = ", ".join(path.name for path in lists)
            raise DataError(
                f"{folder} has several lists for {part}: {names}. Leave the one that is meant, and move the others away."
            )
        for path in lists:
            for number, line in enumerate(read_text(path).splitlines(), 1):
                if line.strip():
                    samples.append(_sample(folder, part, line.strip(), f"{path.name}, line {number}"))
    return samples


def _sample(folder: Path, part: str, line: str, where: str) -> Sample:
    match = _LINE.match(line)
    if match is None or match["label"].lower() not in _LABELS:
        raise DataError(f"{where} is not `patient file label [source]` with a label of {', '.join(_LABELS)}: {line[:80]!r}.")
    patient, file = match["patient"], match["file"]
    source = match["source"] or ("cohen" if _COHEN.match(patient) else "")
    places = [folder / place.format(part=part) / file for place in _PLACES]
    return Sample(
        file=next((path for path in places if path.is_file()), places[0]),
        label=_LABELS[match["label"].lower()],
        # The same code as in the ieee8023 layout: many of its patients are in both.
        patient=f"ieee8023:{patient}" if source == "cohen" else f"covidx:{source or 'unnamed'}:{patient}",
        source=source or "unnamed",
        dataset="covidx",
        finding=match["label"],
        # A code that is the file's own name (RSNA, Figure 1) is one picture's, not a person's.
        patient_known=patient != Path(file).stem,
    )


LAYOUT = Layout(
    name="covidx",
    title="COVIDx (COVID-Net)",
    patients="from the lists; pictures of RSNA and Figure 1 have a code of their own each, and their patients are not known",
    recognises=_recognises,
    read=_read,
)
