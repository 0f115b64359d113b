"""Stored value -> what is displayed, for a DICOM object: modality LUT, VOI LUT or window, inversion, padding.

All of it depends on the stored value alone, so it is done once for every value that a cell can have, and the picture is
one look-up.
Formulas are those of DICOM PS3.3 C.11.1 (modality LUT) and C.11.2 (VOI LUT and window).

A "for processing" image of a DX detector (linear raw values) is shown as its own header says, like any other. The logarithm and the
sharpening that make a radiograph of it differ from maker to maker; making them up here would show the network pictures that no
radiologist has seen. What comes out is flat, and the network's measure of what it has learned says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge.errors import Unreadable
from edge.pixels.decode import to_eight_bits
from edge.pixels.preprocess import Frame

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from edge.pixels.dicom_stored import Cells, Stored

Values = npt.NDArray[np.int64]

_FAR = 2.0**40
"""Beyond every value that a window or a look-up table can ask for, and small enough to be made whole."""

_ROWS_AT_ONCE = 64
"""numpy turns a look-up's index into eight bytes a pixel; by strips that stays small."""


def to_gray(stored: Stored, data: Dataset) -> Frame:
    """Return the displayed picture, 0 black to 255 white, of the shape of the cells.

    Raises:
        Unreadable: damaged, unsupported_encoding.
    """
    values = stored_values(stored, data)
    table = _displayed(values, data)
    if data.get("PhotometricInterpretation") == "MONOCHROME1" or data.get("PresentationLUTShape") == "INVERSE":
        table = 255 - table  # once: a DX object says both of the same inversion
    table[_padding(values, data)] = 0
    return look_up(table, stored.cells)


def look_up(table: Frame, cells: Cells) -> Frame:
    """Return what `table`, which begins at cell content 0, has for every cell."""
    picture = np.empty(cells.shape + table.shape[1:], np.uint8)
    for top in range(0, len(cells), _ROWS_AT_ONCE):
        np.take(table, cells[top : top + _ROWS_AT_ONCE], axis=0, out=picture[top : top + _ROWS_AT_ONCE], mode="clip")
    return picture


def stored_values(stored: Stored, data: Dataset) -> Values:
    """Return the stored value of every content that a cell can have, 256 or 65536 of them.

    Bits outside of Bits Stored may hold anything (old machines keep overlays there).

    Raises:
        Unreadable: damaged, if the bits of the header make no sense.
    """
    cell_bits = 8 * stored.cells.itemsize
    bits, high = int(data.BitsStored), int(data.get("HighBit", 0) or 0)
    if not 1 <= bits <= cell_bits:
        raise Unreadable("damaged", f"{bits} bits stored in cells of {cell_bits}")
    signed = bool(int(data.get("PixelRepresentation", 0) or 0))
    if stored.lossy:
        bounds = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
        return _bit_field(cell_bits, stored.bits - 1, stored.bits, signed).clip(*bounds)
    # A decoder that knows the significant bits has moved them to the bottom of the cell.
    if stored.bits == bits or not bits - 1 <= high < cell_bits:
        high = bits - 1
    return _bit_field(cell_bits, high, bits, signed)


def _bit_field(cell_bits: int, high: int, bits: int, signed: bool) -> Values:
    """The number in `bits` bits from bit `high` downwards, of every content of a cell."""
    cells = np.arange(1 << cell_bits).astype(f"u{cell_bits // 8}") << (cell_bits - 1 - high)
    return np.asarray(cells.view(f"i{cell_bits // 8}" if signed else cells.dtype) >> (cell_bits - bits), np.int64)


def _displayed(values: Values, data: Dataset) -> Frame:
    modality = _first_item(data, "ModalityLUTSequence")
    slope, intercept = _number(data.get("RescaleSlope")), _number(data.get("RescaleIntercept"))
    scaled: npt.NDArray[Any] = values
    if modality is not None:
        scaled = _mapped(values, modality, data)
    elif slope is not None and intercept is not None:
        scaled = (values.astype(np.float64) * slope + intercept).clip(-_FAR, _FAR)
    voi = _first_item(data, "VOILUTSequence")
    if voi is not None:
        return to_eight_bits(_mapped(scaled.astype(np.int64), voi, data), _entry_bits(voi, data))
    window = _window(scaled.astype(np.float64), data)
    if window is not None:
        return window
    if modality is not None:
        return to_eight_bits(scaled.astype(np.int64), _entry_bits(modality, data))
    bits = int(data.BitsStored)
    offset = 1 << (bits - 1) if values.min() < 0 else 0
    whole = to_eight_bits(values + offset, bits)
    return whole if slope is None or slope >= 0 else 255 - whole


def _window(values: npt.NDArray[np.float64], data: Dataset) -> Frame | None:
    """The first window of the object onto 0..255, None where there is none."""
    centre, width = _number(data.get("WindowCenter")), _number(data.get("WindowWidth"))
    function = str(data.get("VOILUTFunction", "") or "LINEAR").strip().upper()
    least = 1.0 if function == "LINEAR" else 1e-6
    if centre is None or width is None or width < least:
        return None
    if function == "SIGMOID":
        # Beyond 60 the exponential is 0 or the picture white to the last bit; it must not overflow.
        scaled = 1 / (1 + np.exp((-4 * (values - centre) / width).clip(-60, 60)))
    elif function == "LINEAR_EXACT":
        scaled = (values - centre) / width + 0.5
    elif width == 1:
        scaled = (values > centre - 0.5).astype(np.float64)
    else:
        scaled = (values - (centre - 0.5)) / (width - 1) + 0.5
    return np.asarray(np.rint(scaled * 255.0).clip(0, 255), np.uint8)


def _padding(values: Values, data: Dataset) -> npt.NDArray[np.bool_]:
    """Which stored values are no part of the picture (PS3.3 C.7.5.1.1.2)."""
    first = _number(data.get("PixelPaddingValue"))
    if first is None:
        return np.zeros(values.shape, np.bool_)
    last = _number(data.get("PixelPaddingRangeLimit"))
    ends = sorted(_as_stored(value, values) for value in (first, first if last is None else last))
    return np.asarray((values >= ends[0]) & (values <= ends[1]))


def _mapped(values: Values, item: Dataset, data: Dataset) -> Values:
    """Apply one item of a LUT sequence; below its first and above its last entry these two hold."""
    table, first = _table(item, data), int(item.LUTDescriptor[1])
    return np.asarray(table[(values - int(_as_stored(first, values))).clip(0, len(table) - 1)])


def _table(item: Dataset, data: Dataset) -> Values:
    entries = int(item.LUTDescriptor[0]) or 1 << 16
    content = item.LUTData
    if isinstance(content, bytes):
        one_byte = len(content) < 2 * entries
        order = "<" if data.file_meta.TransferSyntaxUID.is_little_endian else ">"
        content = np.frombuffer(content, "u1" if one_byte else f"{order}u2")
    table = np.atleast_1d(np.asarray(content, np.int64))[:entries]
    if len(table) < entries:
        raise Unreadable("damaged", f"a look-up table of {len(table)} instead of {entries} entries")
    return table


def _entry_bits(item: Dataset, data: Dataset) -> int:
    """How many bits the entries of a look-up table have.

    Some machines write 16 and fill fewer: taken at its word such a table makes a picture that is nearly black.
    """
    bits = int(item.LUTDescriptor[2])
    if not 8 <= bits <= 16:
        raise Unreadable("unsupported_encoding", f"a look-up table with entries of {bits} bits")
    most = int(_table(item, data).max())
    return next((fewer for fewer in (8, 10, 12) if bits == 16 and most < 1 << fewer), bits)


def _first_item(data: Dataset, keyword: str) -> Dataset | None:
    items = data.get(keyword)
    return items[0] if items else None


def _as_stored(number: float, values: Values) -> float:
    """A number that was written without a sign beside signed values."""
    return number - 65536 if number > 32767 and values.min() < 0 else number


def _number(value: object) -> float | None:
    """The first of one or several finite numbers (a file may offer several windows)."""
    try:
        number = float(value[0] if isinstance(value, (list, tuple)) or hasattr(value, "insert") else value)  # type: ignore[index, arg-type]
    except (TypeError, ValueError, IndexError):
        return None
    return number if np.isfinite(number) else None
