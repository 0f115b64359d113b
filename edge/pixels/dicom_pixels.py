"""The DICOM half of decoding: what is refused before any pixel is looked at, and the way from a file to a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pydicom
from PIL import Image
from pydicom.errors import InvalidDicomError
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import DeflatedExplicitVRLittleEndian

from edge.errors import Refused, Unreadable
from edge.pixels.decode import Decoded, Limits, colour_to_gray, to_eight_bits
from edge.pixels.dicom_grayscale import look_up, stored_values, to_gray
from edge.pixels.dicom_stored import known_uid, read_stored
from edge.pixels.headers import Headers, read_headers
from edge.pixels.preprocess import to_image
from edge.pixels.square import squared
from edge.pixels.study_header import MANUFACTURER

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_RADIOGRAPHS = frozenset({"CR", "DX", "RG", "OT", ""})
"""Modalities of plain films; OT and an empty value are what film digitisers and Secondary Capture write."""


def decode_dicom(path: Path, limits: Limits, tell: Callable[[Headers], object]) -> Decoded:
    """Return the picture in a DICOM file. `tell` and what it raises: as of `edge.pixels.decode.decode_file`."""
    try:
        # Inflating has no bound in pydicom (0.5 MB can become 1 GB), so the syntax is looked at before the rest is read.
        meta = pydicom.filereader.read_file_meta_info(path)
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            raise Unreadable("unsupported_encoding", "deflated transfer syntax")
        data = pydicom.dcmread(path)
        if not data:  # pydicom keeps nothing of an object whose compressed pixels have no end
            tell(read_headers(pydicom.dcmread(path, stop_before_pixels=True)))
            raise Unreadable("truncated", "the pixels have no end")
        headers = read_headers(data)
        tell(headers)
        _check(data, limits)
        picture = _picture(data, headers)
        return replace(picture, image=squared(picture.image, data, limits.max_pixels))
    except (Unreadable, Refused):
        raise
    except MemoryError:
        raise
    # pydicom quotes what it cannot read, and in a damaged file that may be the patient's name.
    except (InvalidDicomError, EOFError) as error:
        raise Unreadable("truncated", type(error).__name__) from None
    except NotImplementedError as error:
        raise Unreadable("unsupported_encoding", type(error).__name__) from None
    except Exception as error:  # pydicom and its decoders raise nearly anything on damaged files
        short = "less than" in str(error) or "expected" in str(error).lower()
        raise Unreadable("truncated" if short else "damaged", type(error).__name__) from None


def _check(data: Dataset, limits: Limits) -> None:
    if "PixelData" not in data:
        raise Unreadable("no_pixels", known_uid(data.get("SOPClassUID")))
    modality = str(data.get("Modality", "") or "").strip().upper()
    if modality not in _RADIOGRAPHS:
        raise Refused("not_a_radiograph", f"modality {modality}" if len(modality) == 2 else "")
    if str(data.get("Manufacturer", "") or "").strip() == MANUFACTURER:
        raise Refused("not_a_radiograph", "it is an answer of such a device")
    if int(data.get("NumberOfFrames", 1) or 1) > 1:
        raise Unreadable("multi_frame", f"{int(data.NumberOfFrames)} frames")
    rows, columns = int(data.get("Rows", 0) or 0), int(data.get("Columns", 0) or 0)
    if rows * columns == 0:
        raise Unreadable("damaged", "no rows or columns")
    if rows * columns > limits.max_pixels:
        raise Unreadable("too_large", f"{columns} x {rows} pixels")
    samples, bits = int(data.get("SamplesPerPixel", 1) or 1), int(data.get("BitsAllocated", 0) or 0)
    if samples not in (1, 3) or bits not in (8, 16):
        raise Unreadable("unsupported_encoding", f"{samples} samples of {bits} bits; 1 and 3, of 8 and 16 bits, are read")


def _picture(data: Dataset, headers: Headers) -> Decoded:
    stored = read_stored(data)
    if stored.cells.ndim == 3:
        bits = min(int(data.BitsStored), 8 * stored.cells.itemsize)  # Pillow keeps eight of a deep JPEG 2000
        gray, chroma = colour_to_gray(Image.fromarray(to_eight_bits(stored.cells, bits)))
        return Decoded(gray, chroma, headers)
    if data.get("PhotometricInterpretation") == "PALETTE COLOR":
        table = apply_color_lut(stored_values(stored, data), data)
        colours = look_up(to_eight_bits(table[:, :3], 8 * table.itemsize), stored.cells)
        gray, chroma = colour_to_gray(Image.fromarray(colours))
        return Decoded(gray, chroma, headers)
    return Decoded(to_image(to_gray(stored, data)), 0.0, headers)
