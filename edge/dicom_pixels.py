"""The DICOM half of decoding: transfer syntax, modality and VOI transformations, MONOCHROME1.

Formulas are those of DICOM PS3.3 C.11.1 (modality LUT) and C.11.2 (VOI LUT and window).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pydicom
from PIL import Image
from pydicom.errors import InvalidDicomError
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.uid import DeflatedExplicitVRLittleEndian

from edge.decode import Decoded, Limits, colour_to_gray, to_eight_bits
from edge.errors import Refused, Unreadable
from edge.headers import read_headers
from edge.preprocess import Frame, to_image

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_RADIOGRAPHS = frozenset({"CR", "DX", "RG", "OT", ""})
"""Modalities of plain films; OT and an empty value are what film digitisers and Secondary Capture write."""


def decode_dicom(path: Path, limits: Limits) -> Decoded:
    """Return the picture in a DICOM file. Raises as `edge.decode.decode_file`."""
    try:
        # Inflating has no bound in pydicom (0.5 MB can become 1 GB), so the syntax is looked at before the rest is read.
        meta = pydicom.filereader.read_file_meta_info(path)
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            raise Unreadable("unsupported_encoding", "deflated transfer syntax")
        data = pydicom.dcmread(path)
        _check(data, limits)
        return _picture(data)
    except (Unreadable, Refused):
        raise
    except MemoryError:
        raise
    except (InvalidDicomError, EOFError) as error:
        raise Unreadable("truncated", str(error)[:200]) from None
    except NotImplementedError as error:
        raise Unreadable("unsupported_encoding", str(error)[:200]) from None
    except Exception as error:  # pydicom and its decoders raise nearly anything on damaged files
        text = str(error)
        if "unable to decompress" in text.lower() or "missing dependencies" in text.lower():
            raise Unreadable("unsupported_encoding", text[:200]) from None
        short = "less than" in text or "expected" in text.lower()
        raise Unreadable("truncated" if short else "damaged", text[:200]) from None


def _check(data: Dataset, limits: Limits) -> None:
    if "PixelData" not in data:
        raise Unreadable("no_pixels", str(data.get("SOPClassUID", "")))
    modality = str(data.get("Modality", "") or "").strip().upper()
    if modality not in _RADIOGRAPHS:
        raise Refused("not_a_radiograph", f"modality {modality[:16]}")
    if int(data.get("NumberOfFrames", 1) or 1) > 1:
        raise Unreadable("multi_frame", f"{data.NumberOfFrames} frames")
    rows, columns = int(data.get("Rows", 0) or 0), int(data.get("Columns", 0) or 0)
    if rows * columns == 0:
        raise Unreadable("damaged", "no rows or columns")
    if rows * columns > limits.max_pixels:
        raise Unreadable("too_large", f"{columns} x {rows} pixels")


def _picture(data: Dataset) -> Decoded:
    headers = read_headers(data)
    stored = data.pixel_array
    if stored.ndim == 3:
        gray, chroma = colour_to_gray(Image.fromarray(np.ascontiguousarray(stored[..., :3], dtype=np.uint8)))
        return Decoded(gray, chroma, headers)
    frame = _displayed(data, stored)
    if data.get("PhotometricInterpretation") == "MONOCHROME1":
        frame = 255 - frame
    return Decoded(to_image(frame), 0.0, headers)


def _displayed(data: Dataset, stored: np.ndarray) -> Frame:
    """Stored values -> modality LUT -> VOI -> 0..255."""
    if "VOILUTSequence" in data:
        table = data.VOILUTSequence[0]
        values = apply_voi_lut(apply_modality_lut(stored, data).astype(np.int64), data)
        return to_eight_bits(values.astype(np.int64), int(table.LUTDescriptor[2]))
    centre, width = _first(data.get("WindowCenter")), _first(data.get("WindowWidth"))
    if centre is not None and width is not None and width >= 1:
        return _window(apply_modality_lut(stored, data), centre, width)
    bits = int(data.get("BitsStored", 8))
    offset = 1 << (bits - 1) if int(data.get("PixelRepresentation", 0)) else 0
    return to_eight_bits(stored.astype(np.int64) + offset, bits)


def _window(values: np.ndarray, centre: float, width: float) -> Frame:
    """Linear window of PS3.3 C.11.2.1.2.1 onto 0..255; a width of 1 is a step."""
    if width <= 1:
        return np.where(values > centre - 0.5, 255, 0).astype(np.uint8)
    scaled = ((values - (centre - 0.5)) / (width - 1) + 0.5) * 255.0
    return np.rint(scaled).clip(0, 255).astype(np.uint8)


def _first(value: object) -> float | None:
    """The first of one or several numbers (a file may offer several windows)."""
    if value is None or value == "":
        return None
    try:
        return float(value[0] if isinstance(value, (list, pydicom.multival.MultiValue)) else value)  # type: ignore[arg-type]
    except (TypeError, ValueError, IndexError):
        return None
