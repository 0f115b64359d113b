"""From a DICOM object to the cells of its one picture, whatever its transfer syntax.

A cell is what the object allots to one sample: 8 or 16 bits, of which `edge.pixels.dicom_grayscale` picks the significant ones.
Which decoder reads what is said here and nowhere else (ADR 0014). pydicom would try all that it finds, one after the other, and
loads them all when it is imported; here a decoder is loaded when a picture needs it.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import (
    JPEG2000,
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from edge.errors import Unreadable
from edge.pixels.codestream import JPEG_2000, JPEG_LS, Codestream, read_codestream
from edge.pixels.dicom_rle import decode_rle
from edge.pixels.memory_limit import loading, require_memory

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Cells = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

_LOSSY = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000})
_OPENJPEG_TAKES, _GDCM_TAKES = 9, 14
"""Bytes for each sample, with what is made of its output; measured by the least limits at which films were read."""
_TEXT_AT_ONCE = 1 << 20
_COMPRESSED = _LOSSY | {JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless}


@dataclass(frozen=True)
class Stored:
    """The cells of a picture.

    cells: shape (rows, columns), or (rows, columns, 3) in RGB.
    bits: those of a cell that hold something, 8 or 16 unless the compressed picture has another precision.
    lossy: values beyond Bits Stored are then errors of the compression, and no foreign bits.
    """

    cells: Cells
    bits: int
    lossy: bool = False


def read_stored(data: Dataset) -> Stored:
    """Return the cells of an object, which loses its Pixel Data by that where they are compressed.

    Raises:
        MemoryError: if there is not enough for this picture.
        Unreadable: damaged, truncated, unsupported_encoding.
        Exception: what pydicom and the decoders raise on damaged content.
    """
    syntax = data.file_meta.TransferSyntaxUID
    if syntax == RLELossless:
        return _run_length(data)
    if syntax in _COMPRESSED:
        return _decompressed(data, syntax in _LOSSY)
    if syntax.is_encapsulated:
        raise Unreadable("unsupported_encoding", f"transfer syntax {known_uid(syntax)}")
    # The unused bits of a cell are for the table of `edge.pixels.dicom_grayscale`; here they would cost a copy.
    options: Any = {"correct_unused_bits": False, "view_only": True}
    cells, _ = get_decoder(syntax).as_array(data, index=0, **options)
    return Stored(_unsigned(cells), int(data.BitsAllocated))


def known_uid(uid: object) -> str:
    """Return the name of a UID of the standard, else "another": in a damaged file it may be anything, a patient's name too."""
    return uid.name if isinstance(uid, UID) and uid.name != uid else "another"


def _unsigned(cells: npt.NDArray[Any]) -> Cells:
    """The same bits in this machine's byte order, as numbers without a sign."""
    native = cells.astype(cells.dtype.newbyteorder("="), copy=False)
    if native.itemsize == 1:
        return native.view(np.uint8)
    return native.view(np.uint16)


def _run_length(data: Dataset) -> Stored:
    samples, bits = int(data.get("SamplesPerPixel", 1)), int(data.BitsAllocated)
    content = _taken(data)
    cells = decode_rle(content, int(data.Rows), int(data.Columns), samples, bits // 8)
    whole = _unsigned(cells if bits == 8 else cells.view("<u2"))[..., 0]
    return Stored(whole[..., 0] if samples == 1 else _in_rgb(whole, data), bits)


def _in_rgb(cells: Cells, data: Dataset) -> Cells:
    if "YBR_FULL" in str(data.get("PhotometricInterpretation", "")):
        return _unsigned(convert_color_space(cells, "YBR_FULL", "RGB"))
    return cells


def _decompressed(data: Dataset, lossy: bool) -> Stored:
    content = _taken(data)
    stream = read_codestream(content)
    _check(stream, data)
    if stream.marker == JPEG_2000:
        cells = _by_openjpeg(content, stream)
    elif stream.marker == JPEG_LS:
        cells = _by_charls(content, stream)
    elif stream.lossless_jpeg or stream.bits > 8:
        cells = _by_gdcm(content, stream)
    else:
        return Stored(_by_libjpeg(content, data), stream.bits, lossy)
    return Stored(cells if stream.samples == 1 else _in_rgb(cells, data), stream.bits, lossy)


def _taken(data: Dataset) -> bytes:
    """Return the one compressed picture, and let the object go of it: a large film has no room to be there twice."""
    content = join_fragments(data.PixelData)
    del data.PixelData
    return content


def join_fragments(value: bytes) -> bytes:
    """Return the one compressed picture of an encapsulated Pixel Data element (PS3.5 A.4).

    Raises:
        Unreadable: damaged, if the items or the offset table lie; truncated, if the last item is cut short.
    """
    items: list[memoryview] = []
    view, at = memoryview(value), 0
    while at + 8 <= len(view):
        group, element, length = struct.unpack_from("<HHI", view, at)
        if (group, element) == (0xFFFE, 0xE0DD):
            break
        if (group, element) != (0xFFFE, 0xE000):
            raise Unreadable("damaged", "the list of fragments is broken")
        if length > len(view) - at - 8:
            raise Unreadable("truncated", f"a fragment of {length} bytes, {len(view) - at - 8} are there")
        items.append(view[at + 8 : at + 8 + length])
        at += 8 + length
    if len(items) < 2:
        raise Unreadable("damaged", "no compressed picture inside")
    if items[0].nbytes and bytes(items[0]) != bytes(4):
        raise Unreadable("damaged", "the offset table is not that of one picture")
    return b"".join(items[1:])


def _check(stream: Codestream, data: Dataset) -> None:
    rows, columns, samples = int(data.Rows), int(data.Columns), int(data.get("SamplesPerPixel", 1))
    if (stream.rows, stream.columns, stream.samples) != (rows, columns, samples):
        inside = f"{stream.columns} x {stream.rows} x {stream.samples}"
        raise Unreadable("damaged", f"the header says {columns} x {rows} x {samples}, the compressed picture is {inside}")
    least, most = int(data.BitsStored), int(data.BitsAllocated)
    # Encoders may fill the whole cell; fewer bits than are said to be significant would be shown too dark.
    if not least <= stream.bits <= most:
        raise Unreadable("damaged", f"the header says {least} of {most} bits, the compressed picture has {stream.bits}")
    if stream.lossy_jpeg and stream.bits not in (8, 12):
        raise Unreadable("damaged", f"a lossy JPEG of {stream.bits} bits, there are only 8 and 12")


def _by_libjpeg(content: bytes, data: Dataset) -> Cells:
    from PIL.JpegImagePlugin import JpegImageFile

    with JpegImageFile(io.BytesIO(content)) as image:
        # Without a marker libjpeg takes three samples for YCbCr; then the DICOM header knows better.
        unmarked = not {"adobe_transform", "jfif"} & image.info.keys()
        if image.mode == "RGB" and unmarked and data.get("PhotometricInterpretation") == "RGB":
            image.draft("YCbCr", image.size)
        return np.asarray(image)


def _by_openjpeg(content: bytes, stream: Codestream) -> Cells:
    require_memory(stream.rows * stream.columns * stream.samples * _OPENJPEG_TAKES)
    from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile

    with Jpeg2KImageFile(io.BytesIO(content)) as image:
        cells = _unsigned(np.asarray(image))
    if stream.samples > 1:
        return cells
    # Pillow fills the cell from above and lifts signed values above zero: both are undone.
    lifted = cells >> (8 * cells.itemsize - stream.bits)
    return _unsigned(lifted ^ (1 << (stream.bits - 1)) if stream.signed else lifted)


def _by_charls(content: bytes, stream: Codestream) -> Cells:
    _check_end(content)
    try:
        with loading():
            import jpeg_ls
    except ImportError:
        raise Unreadable("unsupported_encoding", "JPEG-LS needs pyjpegls, which this device does not have") from None
    decoded, header = jpeg_ls.decode_pixel_data(content)
    if stream.samples > 1 and header["interleave_mode"] == 0:
        return _unsigned(_shaped(decoded, stream, (stream.samples, stream.rows, stream.columns)).transpose(1, 2, 0))
    return _shaped(decoded, stream)


def _by_gdcm(content: bytes, stream: Codestream) -> Cells:
    _check_end(content)
    require_memory(
        stream.rows * stream.columns * stream.samples * _GDCM_TAKES
    )  # before the import, which short of memory says that there is no such library
    try:
        with loading():
            import gdcm
    except ImportError:
        raise Unreadable("unsupported_encoding", "this JPEG needs python-gdcm, which this device does not have") from None
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(content)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    codec = gdcm.JPEGCodec()
    codec.SetNumberOfDimensions(2)
    codec.SetDimensions((stream.columns, stream.rows, 1))
    kind = gdcm.PhotometricInterpretation
    codec.SetPhotometricInterpretation(kind(kind.MONOCHROME2 if stream.samples == 1 else kind.RGB))
    codec.SetPixelFormat(gdcm.PixelFormat(stream.samples, 8 if stream.bits <= 8 else 16, stream.bits, stream.bits - 1, 0))
    decoded = gdcm.DataElement()
    # `gdcm.Image.GetBuffer` would do too, and hands out whatever lay in memory where decoding fails.
    if not codec.Decode(element, decoded):
        raise Unreadable("damaged", "the JPEG picture cannot be decompressed")
    return _shaped(_bytes_of(decoded.GetByteValue()), stream)


def _bytes_of(value: Any) -> npt.NDArray[np.uint8]:
    """Return what gdcm's wrapper hands out as text; encoded whole it would take three times its length for a moment."""
    text = value.GetBuffer()
    # gdcm makes a number of a length in its text alone.
    whole, done = np.empty(int(str(value.ComputeLength())), np.uint8), 0
    for start in range(0, len(text), _TEXT_AT_ONCE):
        part = text[start : start + _TEXT_AT_ONCE].encode("utf-8", "surrogateescape")
        whole[done : done + len(part)] = np.frombuffer(part, np.uint8)
        done += len(part)
    return whole[:done]


def _shaped(decoded: bytes | bytearray | npt.NDArray[np.uint8], stream: Codestream, shape: tuple[int, ...] = ()) -> Cells:
    cells = _unsigned(np.frombuffer(decoded, "u1" if stream.bits <= 8 else "<u2"))
    needed = stream.rows * stream.columns * stream.samples
    if cells.size not in (needed, needed + needed % 2):  # gdcm makes an odd number of bytes even
        raise Unreadable("damaged", f"{cells.size} samples came out of {needed}")
    whole = shape or (stream.rows, stream.columns, stream.samples)
    return cells[:needed].reshape(whole if stream.samples > 1 else whole[:2])


def _check_end(content: bytes) -> None:
    """The decoders fill a picture that is cut short with gray and say nothing, so its end marker is asked for."""
    if not content.rstrip(b"\0\xff").endswith(b"\xff\xd9"):
        raise Unreadable("truncated", "the compressed picture has no end")
