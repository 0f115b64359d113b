"""The largest films that a profile takes, in every encoding that its board reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from export.phantom import phantom
from tests.support.dicom_files import dicom

_SYNTAXES = {
    "DICOM": ExplicitVRLittleEndian,
    "DICOM, RLE": RLELossless,
    "DICOM, JPEG-LS": JPEGLSLossless,
    "DICOM, JPEG 2000": JPEG2000Lossless,
    "DICOM, JPEG lossless": JPEGLosslessSV1,
}
_WHEELS_MISSING_ON_32_BIT = ("DICOM, JPEG-LS", "DICOM, JPEG lossless")


def write_films(folder: Path, megapixels: int, dicom_in: Sequence[str] = tuple(_SYNTAXES)) -> dict[str, Path]:
    """Write a drawn film with the grain of a 12-bit detector in every encoding (of DICOM, those named), at most so many pixels.

    Portrait 4:5; its rows come by eights, so that it is written in seconds; a decoder takes no less memory for it.
    """
    folder.mkdir()
    width = int((megapixels * 1e6 / 1.25) ** 0.5) // 32 * 32
    drawn = Image.fromarray(phantom(1, width=800, height=1000)).resize((width, width * 5 // 32), Image.Resampling.BICUBIC)
    shades = np.asarray(drawn).astype(np.uint16)
    grain = np.random.default_rng(20260131).integers(0, 16, shades.shape, dtype=np.uint16)
    deep = np.repeat(shades * 16 + grain, 8, axis=0)
    flat = Image.fromarray((deep >> 4).astype(np.uint8))
    flat.save(folder / "eight.jpg", quality=90)
    flat.save(folder / "eight.png", compress_level=1)
    flat.convert("RGB").save(folder / "colour.png", compress_level=1)
    Image.fromarray(deep).save(folder / "sixteen.png", compress_level=1)
    films = {"JPEG": "eight.jpg", "PNG": "eight.png", "PNG in colour": "colour.png", "PNG, 16 bits": "sixteen.png"}
    found = {name: folder / file for name, file in films.items()}
    for number, name in enumerate(dicom_in, 1):
        file = folder / f"{number}.dcm"
        found[name] = dicom(file, deep, bits=12, syntax=_SYNTAXES[name], SOPInstanceUID=f"1.2.3.{number}")
    return found


def read_by(architecture: str, encoding: str) -> bool:
    """Return whether a board of this architecture has the decoder."""
    return architecture != "armv7l" or encoding not in _WHEELS_MISSING_ON_32_BIT
