"""Small files of every kind that the device reads, drawn from seeds: what a fuzzer starts from.

python -m tests.fuzz.corpus FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.uid import JPEGBaseline8Bit

from export.phantom import phantom
from tests.support.dicom_files import LOSSLESS, LOSSY, UNCOMPRESSED, dicom

SECRET = "Zanzibar^Quetzal"
"""The patient in every DICOM file of the corpus; no answer may show any part of it."""

_SIDE = 64


def write_corpus(folder: Path) -> list[Path]:
    """Write one file of each kind and return their paths, in an order that is always the same."""
    folder.mkdir(parents=True, exist_ok=True)
    frame = phantom(11, width=_SIDE, height=_SIDE)
    deep = frame.astype(np.uint16) << 4
    for kind in ("PNG", "JPEG", "TIFF"):
        Image.fromarray(frame).save(folder / f"8.{kind.lower()}")
    Image.fromarray(deep).save(folder / "16.png")
    Image.fromarray(deep).save(folder / "16.tiff")
    Image.fromarray(frame).convert("P").save(folder / "palette.png")
    named = {"PatientName": SECRET, "PatientID": SECRET}
    for syntax in (*UNCOMPRESSED, *LOSSLESS, *LOSSY):
        eight = syntax == JPEGBaseline8Bit
        dicom(folder / f"{syntax}.dcm", frame if eight else deep, bits=8 if eight else 12, syntax=syntax, **named)
    window = {"WindowCenter": [2000, 1000], "WindowWidth": [3000, 100], "VOILUTFunction": "SIGMOID", "PixelPaddingValue": 0}
    dicom(folder / "window.dcm", 4095 - deep, bits=12, photometric="MONOCHROME1", **named, **window)
    dicom(folder / "colour.dcm", np.dstack([frame] * 3), **named)
    table = pydicom.Dataset()
    table.LUTDescriptor, table.LUTData = [4096, 0, 12], np.arange(4096, dtype="<u2").tobytes()
    dicom(folder / "table.dcm", deep, bits=12, **named, VOILUTSequence=pydicom.Sequence([table]))
    return sorted(folder.iterdir())


if __name__ == "__main__":
    print(f"{len(write_corpus(Path(sys.argv[1])))} files in {sys.argv[1]}")
