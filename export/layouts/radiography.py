"""COVID-19 Radiography Database (Qatar University and others): four classes, each with images/ and masks/.

Facts: README.md.txt in the release and the folders as code that reads them names them (Kaggle,
tawsifurrahman/covid19-radiography-database, second update): COVID/, Lung_Opacity/, Normal/, Viral Pneumonia/, and beside them
NAME.metadata.xlsx with the columns FILE NAME, FORMAT, SIZE, URL. The URL says from which set a picture was taken, which is what a
network must not learn. `Viral Pneumonia` and a part of `Normal` are Kermany's children, `Lung_Opacity` and the rest of `Normal`
are RSNA's adults. Masks are smaller than the pictures and of the same shape.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit
from zipfile import BadZipFile

from export.dataset import Sample
from export.errors import DataError
from export.layouts.layout import Labels, Layout, alone, pictures_in

_CLASSES = {
    "COVID": ("covid19", "COVID-19"),
    "Lung_Opacity": ("lung_opacity", "lung opacity"),
    "Normal": ("normal", "normal"),
    "Viral Pneumonia": ("pneumonia", "virus"),
}
_SOURCES = {
    "rsna": "rsna",
    "paultimothymooney": "kermany",
    "bimcv": "bimcv",
    "ml-workgroup": "hannover",
    "armiro": "covid-cxnet",
    "ieee8023": "ieee8023",
    "sirm": "sirm",
    "eurorad": "eurorad",
}
"""Part of a URL, and the set that it stands for."""


def _root(folder: Path) -> Path | None:
    for root in (folder, folder / "COVID-19_Radiography_Dataset"):
        if all((root / name / "images").is_dir() for name in ("COVID", "Normal")):
            return root
    return None


def _recognises(folder: Path) -> bool:
    return _root(folder) is not None


def _read(folder: Path, _labels: Labels) -> list[Sample]:
    root = _root(folder) or folder
    return [sample for name in _CLASSES for sample in _class(folder, root, name)]


def _class(folder: Path, root: Path, name: str) -> list[Sample]:
    label, finding = _CLASSES[name]
    sources = _sources(root / f"{name}.metadata.xlsx")
    samples = []
    for file in pictures_in(root / name / "images"):
        source = sources.get(file.stem.lower(), "kermany" if label == "pneumonia" else "unnamed")
        mask = root / name / "masks" / file.name
        samples.append(
            Sample(
                file=file,
                label=label,
                patient=alone("radiography", folder, file),
                source=source,
                dataset="radiography",
                lung_mask=mask if mask.is_file() else None,
                finding=finding,
                group="child" if source == "kermany" else "",
                patient_known=False,
            )
        )
    return samples


def _sources(table: Path) -> dict[str, str]:
    """Return the source of each picture, by its name in lower case without ending; nothing if there is no such table."""
    if not table.is_file():
        return {}
    import openpyxl  # only this layout needs it

    try:
        book = openpyxl.load_workbook(table, read_only=True)
        rows = [[str(value or "").strip() for value in row] for row in book.active.iter_rows(values_only=True)]
        book.close()
    except (BadZipFile, KeyError, ValueError, OSError) as error:
        raise DataError(f"{table} is no Excel table ({error}). Get it again from the publisher, or remove it.") from None
    header = [name.upper() for name in rows[0]] if rows else []
    if not {"FILE NAME", "URL"} <= set(header):
        raise DataError(f"{table} lacks the column FILE NAME or URL. Get it again from the publisher, or remove it.")
    file, url = header.index("FILE NAME"), header.index("URL")
    return {Path(row[file]).name.lower().removesuffix(".png"): _source(row[url]) for row in rows[1:] if row[file]}


def _source(url: str) -> str:
    return next((name for part, name in _SOURCES.items() if part in url.lower()), urlsplit(url).netloc or "unnamed")


LAYOUT = Layout(
    name="radiography",
    title="COVID-19 Radiography Database",
    patients="not published: each picture counts as a person of its own",
    recognises=_recognises,
    read=_read,
)
