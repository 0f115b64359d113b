"""From a file to one grayscale frame. Runs in a child process on the device (`edge.pixels.decoder`), directly in training.

The kind of a file is told from its first bytes, never from its name. Limits are checked on the declared size before any
pixel is decoded; the child's memory and time limits stand behind them for what a header hides.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from PIL import Image, ImageChops

from edge.errors import Unreadable
from edge.pixels.headers import NO_HEADERS, Headers
from edge.pixels.lean_pydicom import lean_pydicom
from edge.pixels.memory_limit import loading, require_memory
from edge.pixels.preprocess import Frame, to_image

if TYPE_CHECKING:
    import numpy as np

_DICOM_MAGIC_AT = 128
_ROWS_AT_ONCE = 64
_NUMPY_TAKES = 48 * 2**20
"""With 32 MiB that it maps and never touches here."""


@dataclass(frozen=True)
class Limits:
    """What a file may ask for: bytes on disk, and pixels of the declared size."""

    max_bytes: int = 128 * 1024 * 1024
    max_pixels: int = 64_000_000


@dataclass(frozen=True)
class Decoded:
    """One picture, as a radiologist would see it on a display.

    image: mode L, bone white. It stays what the decoder made: as an array a film is copied twice, for nothing.
    chroma: mean over pixels of max(R, G, B) - min(R, G, B), 0..255; 0 for a grayscale file.
    """

    image: Image.Image
    chroma: float = 0.0
    headers: Headers = NO_HEADERS


def decode_file(path: Path, limits: Limits = Limits(), tell: Callable[[Headers], object] = lambda headers: None) -> Decoded:
    """Return the picture in a file.

    `tell` is told the headers of a DICOM object as soon as they are read: they name the patient also where this raises.

    Raises:
        Unreadable: empty_file, too_large, not_an_image, truncated, damaged, unsupported_encoding, no_pixels, multi_frame.
        Refused: not_a_radiograph.
    """
    size = path.stat().st_size
    if size == 0:
        raise Unreadable("empty_file")
    if size > limits.max_bytes:
        raise Unreadable("too_large", f"{size} bytes, the limit is {limits.max_bytes}")
    with path.open("rb") as file:
        start = file.read(_DICOM_MAGIC_AT + 4)
        if start[_DICOM_MAGIC_AT:] == b"DICM":
            with loading(), lean_pydicom():
                from edge.pixels.dicom_pixels import decode_dicom  # pydicom costs 0.2 s to import, and most files do not need it
            return decode_dicom(path, limits, tell)
        file.seek(0)
        return _decode_raster(file, start, limits)


def open_png(file: BinaryIO) -> Image.Image:
    """Open a PNG with the decoder for PNG and no other; `Image.open` would first load those for five formats."""
    from PIL.PngImagePlugin import PngImageFile

    return PngImageFile(file)


def to_eight_bits(values: np.ndarray, bits: int) -> Frame:
    """Keep the upper eight of `bits` significant bits; the same picture stored deeper gives the same bytes."""
    return (values >> max(bits - 8, 0)).clip(0, 255).astype("uint8")


def colour_to_gray(image: Image.Image) -> tuple[Image.Image, float]:
    """Return (image of mode L, chroma) of an image of mode RGB; luma after ITU-R BT.601."""
    size = min(image.width, 256), min(image.height, 256)
    red, green, blue = image.resize(size, Image.Resampling.NEAREST).split()
    most = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    least = ImageChops.darker(ImageChops.darker(red, green), blue)
    counts = ImageChops.subtract(most, least).histogram()
    return image.convert("L"), sum(value * count for value, count in enumerate(counts)) / sum(counts)


def _open(file: BinaryIO, start: bytes) -> Image.Image:
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return open_png(file)
    if start.startswith(b"\xff\xd8\xff"):
        from PIL.JpegImagePlugin import JpegImageFile

        return JpegImageFile(file)
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        from PIL.TiffImagePlugin import TiffImageFile

        return TiffImageFile(file)
    raise Unreadable("not_an_image")


def _decode_raster(file: BinaryIO, start: bytes, limits: Limits) -> Decoded:
    try:
        with _open(file, start) as image:
            if image.width * image.height > limits.max_pixels:
                raise Unreadable("too_large", f"{image.width} x {image.height} pixels")
            if getattr(image, "n_frames", 1) > 1:
                raise Unreadable("multi_frame", f"{image.format} with {getattr(image, 'n_frames', 1)} pictures")
            image.load()
            return _gray(image)
    except (OSError, SyntaxError, ValueError, struct.error, EOFError, IndexError, TypeError, OverflowError) as error:
        # Pillow's decoders raise all of these on damaged files.
        reason = "truncated" if "truncated" in str(error).lower() else "damaged"
        raise Unreadable(reason, str(error)[:200]) from None


def _gray(image: Image.Image) -> Decoded:
    if image.getexif().get(0x0112, 1) != 1:
        from PIL import ImageOps

        image = ImageOps.exif_transpose(image)
    if image.mode in ("L", "LA", "1"):
        return Decoded(image if image.mode == "L" else image.convert("L"))
    if image.mode.startswith("I") or image.mode == "F":
        frame = _from_deep(image)
        return Decoded(to_image(255 - frame if _white_is_zero(image) else frame))
    gray, chroma = colour_to_gray(image if image.mode == "RGB" else image.convert("RGB"))  # converting would copy all the same
    return Decoded(gray, chroma)


def _white_is_zero(image: Image.Image) -> bool:
    """Whether a deep TIFF is stored inverted, which Pillow undoes for eight bits only."""
    return getattr(image, "tag_v2", {}).get(262) == 0


def _from_deep(image: Image.Image) -> Frame:
    """16-bit files hold 10, 12, 14 or 16 significant bits and do not say which: the largest value tells.

    By strips: numpy wants eight bytes for each pixel of what is clipped here, which a whole film has not to spare on a small board.
    """
    require_memory(_NUMPY_TAKES)  # an import that is refused memory half-way says so in many ways
    with loading():
        import numpy as np  # costs the process 50 ms and 7 MB, which the usual PNG and JPEG need not pay

    def strip(top: int) -> np.ndarray:
        values = np.asarray(image.crop((0, top, image.width, min(top + _ROWS_AT_ONCE, image.height))))
        if values.dtype.kind == "f":
            values = np.nan_to_num(values)
        return values.astype(np.int64).clip(0, 65535)

    tops = range(0, image.height, _ROWS_AT_ONCE)
    largest = max(int(strip(top).max()) for top in tops)
    bits = next((bits for bits in (8, 10, 12, 14) if largest < 1 << bits), 16)
    frame = np.empty((image.height, image.width), np.uint8)
    for top in tops:
        frame[top : top + _ROWS_AT_ONCE] = to_eight_bits(strip(top), bits)
    return frame
