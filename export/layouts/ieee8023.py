"""COVID-19 image data collection (Cohen et al.): metadata.csv beside images/.

Facts: SCHEMA.md and metadata.csv of the publisher's repository (github.com/ieee8023/covid-chestxray-dataset). Findings are a path
such as Pneumonia/Viral/COVID-19 in the later releases and a name such as SARS or `COVID-19, ARDS` in the first ones; `todo` and
`Unknown` say nothing. Views: PA, AP, AP Supine (also written APS), AP Erect, L; CT slices are Axial or Coronal. One lung mask a
picture may lie in annotations/lungVAE-masks/ as NAME_mask.png.
"""

from __future__ import annotations

import csv
from pathlib import Path

from export.dataset import Sample, facts
from export.errors import DataError
from export.layouts.layout import Labels, Layout, read_text

_TABLE = "metadata.csv"
_FRONTAL = frozenset({"PA", "AP", "AP SUPINE", "APS", "AP ERECT"})
_MASKS = "annotations/lungVAE-masks"
_PNEUMONIAS = frozenset(
    {"sars", "mers", "mers-cov", "influenza", "h1n1", "varicella", "herpes", "viral", "bacterial", "fungal", "aspiration", "lipoid"}
    | {"streptococcus", "staphylococcus", "mrsa", "klebsiella", "legionella", "mycoplasma", "chlamydophila", "e.coli", "nocardia"}
    | {"pneumocystis", "aspergillosis"}
)
"""Findings of the first releases that are a pneumonia by its cause, in lower case; the later ones say Pneumonia/ before them."""
_NEEDED = ("patientid", "finding", "filename", "view")
_NOTHING_SAID = frozenset({"", "todo", "unknown"})


def _recognises(folder: Path) -> bool:
    table = folder / _TABLE
    if not table.is_file() or not (folder / "images").is_dir():
        return False
    with table.open("rb") as file:
        columns = file.readline(4000).decode("utf-8", "replace").lower()
    return all(name in columns for name in _NEEDED)


def label_of(finding: str) -> str:
    """Return the label of a finding, or an empty string where it says nothing."""
    words = finding.strip().lower()
    parts = [part.strip() for part in words.replace("/", ",").split(",")]
    if words in _NOTHING_SAID:
        return ""
    if "covid-19" in parts:
        return "covid19"
    if words == "no finding":
        return "normal"
    return "pneumonia" if "pneumonia" in parts or _PNEUMONIAS & set(parts) else "other"


def _read(folder: Path, _labels: Labels) -> list[Sample]:
    reader = csv.DictReader(read_text(folder / _TABLE).splitlines(keepends=True), restval="")
    try:
        rows = [{(name or "").strip().lower(): value for name, value in row.items() if isinstance(value, str)} for row in reader]
    except csv.Error as error:
        raise DataError(f"{folder / _TABLE} is not a table of comma-separated text: {error}.") from None
    lacking = [name for name in _NEEDED if rows and name not in rows[0]]
    if lacking:
        raise DataError(f"{folder / _TABLE} lacks the column {', '.join(lacking)}. Get the set again from its publisher.")
    return [_sample(folder, row) for row in rows if _frontal(row) and label_of(row.get("finding", ""))]


def _frontal(row: dict[str, str]) -> bool:
    radiograph = row.get("modality", "X-ray").strip().lower() in ("x-ray", "")
    return radiograph and " ".join(row.get("view", "").upper().split()) in _FRONTAL


def _sample(folder: Path, row: dict[str, str]) -> Sample:
    file = folder / "images" / row["filename"].strip()
    mask = folder / _MASKS / f"{file.stem}_mask.png"
    patient = row["patientid"].strip()
    known = facts(row)
    known["patient_known"] = bool(patient)
    return Sample(
        file=file,
        label=label_of(row["finding"]),
        patient=f"ieee8023:{patient}" if patient else f"ieee8023:file:{file.name}",
        source="ieee8023",
        dataset="ieee8023",
        lung_mask=mask if mask.is_file() else None,
        **known,
    )


LAYOUT = Layout(
    name="ieee8023",
    title="COVID-19 image data collection, Cohen et al. (ieee8023)",
    patients="the column patientid",
    recognises=_recognises,
    read=_read,
)
