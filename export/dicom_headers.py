"""The headers of a hospital's DICOM export, read without the pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.uid import DeflatedExplicitVRLittleEndian

from edge.pixels.headers import NO_HEADERS, Headers, read_headers

_MAGIC_AT = 128


@dataclass(frozen=True)
class Export:
    """One file of the export. reason: why it cannot be used, empty if it can. burned_in: YES, NO, or empty where it is not said."""

    file: Path
    headers: Headers = NO_HEADERS
    accession: str = ""
    burned_in: str = ""
    reason: str = ""


def read_export(folder: Path) -> list[Export]:
    """Return what the headers of every file below a folder say, in order of their paths; never raises for a single file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "DICOMDIR" and path.name[0] != ".")
    return [_export(file) for file in files]


def _export(file: Path) -> Export:
    try:
        with file.open("rb") as opened:
            if opened.read(_MAGIC_AT + 4)[_MAGIC_AT:] != b"DICM":
                return Export(file, reason="no_dicom")
        # As in `edge.pixels.dicom_pixels`: inflating has no bound, so the syntax is looked at before the rest is read.
        if pydicom.filereader.read_file_meta_info(file).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            return Export(file, reason="unsupported_encoding")
        data = pydicom.dcmread(file, stop_before_pixels=True)
        return Export(
            file,
            headers=read_headers(data),
            accession=str(data.get("AccessionNumber", "") or "").strip(),
            burned_in=str(data.get("BurnedInAnnotation", "") or "").strip().upper(),
        )
    except MemoryError:
        raise
    except Exception:  # pydicom raises nearly anything on damaged files; the file is listed
        return Export(file, reason="damaged")
