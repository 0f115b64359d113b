"""A hospital's table of labels: which study, object or file shows what."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from export.errors import DataError
from export.layouts.layout import FOLDER_LABELS, plain

KEYS = {
    "sopinstanceuid": "sop",
    "sop": "sop",
    "file": "file",
    "filename": "file",
    "path": "file",
    "accession": "accession",
    "accessionnumber": "accession",
}
"""Letters and digits of a column's name, and what it holds."""
_LABEL = re.compile(r"[a-z][a-z0-9_]{0,31}$")


@dataclass(frozen=True)
class Row:
    """One row: the number of its line, its label, and its keys (sop, file, accession) as far as they are filled in."""

    line: int
    label: str
    keys: dict[str, str]


def read_labels(path: Path) -> list[Row]:
    """Read a table with the column `label` and one or more of sop_instance_uid, file, accession_number.

    Raises:
        DataError: if it cannot be read, lacks a column, has a row without key or with an impossible label, or contradicts itself.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            start = file.read(4096)
            file.seek(0)
            table = list(csv.reader(file, delimiter=";" if start.count(";") > start.count(",") else ","))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). Name the table of labels.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no table of comma-separated UTF-8 text: {error}.") from None
    columns = [plain(name) for name in table[0]] if table else []
    if "label" not in columns or not any(name in KEYS for name in columns):
        raise DataError(
            f"The first line of {path} has to name the column label and one of sop_instance_uid, file, accession_number."
        )
    rows = [_row(path, line, columns, values) for line, values in enumerate(table[1:], 2) if any(v.strip() for v in values)]
    _agree(path, rows)
    return rows


def clean_label(text: str) -> str:
    """Return a label in this project's names, or in lower case with underscores; empty if it can be no label."""
    known = FOLDER_LABELS.get(plain(text))
    label = known or re.sub(r"[ .-]+", "_", text.strip().lower())
    return label if _LABEL.match(label) else ""


def _row(path: Path, line: int, columns: Sequence[str], values: Sequence[str]) -> Row:
    filled = {name: value.strip() for name, value in zip(columns, values, strict=False) if value.strip()}
    keys = {KEYS[name]: value for name, value in filled.items() if name in KEYS}
    label = clean_label(filled.get("label", ""))
    if not keys or not label:
        what = "no sop_instance_uid, file or accession_number" if not keys else "no label of letters, digits and underscores"
        raise DataError(f"{path}, line {line} has {what}. Fill it in, or remove the line.")
    return Row(line, label, keys)


def _agree(path: Path, rows: Sequence[Row]) -> None:
    first: dict[tuple[str, str], Row] = {}
    for row in rows:
        for key in row.keys.items():
            # A study may have several objects with findings of their own, so an accession number alone has to agree.
            if key[0] == "accession" and len(row.keys) > 1:
                continue
            other = first.setdefault(key, row)
            if other.label != row.label:
                raise DataError(
                    f"{path} contradicts itself: line {other.line} says {other.label} and line {row.line} says {row.label} "
                    f"of the same {key[0]}. Correct one of them; nothing was written."
                )
