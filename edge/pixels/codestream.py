"""What a compressed picture says of itself: JPEG and JPEG-LS frame header (SOFn), JPEG 2000 image size (SIZ).

Read before any pixel is decoded, so that a stream that is larger than its DICOM header says is refused while it is still small.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from edge.errors import Unreadable

JPEG_LS = 0xF7
JPEG_2000 = 0x51

_LOSSLESS = frozenset({0xC3, 0xC7, 0xCB, 0xCF})
_FRAMES = frozenset({*range(0xC0, 0xD0), JPEG_LS}) - {0xC4, 0xC8, 0xCC}
"""Markers of a frame header; DHT, JPG and DAC lie among them and are none."""

_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a length: TEM, RSTn, SOI."""


@dataclass(frozen=True)
class Codestream:
    """The declared form of one compressed picture.

    marker: the frame header's marker, which names the process (0xC0 baseline ... 0xF7 JPEG-LS), or `JPEG_2000`.
    bits: precision of a sample, 1..38 for JPEG 2000, else 2..16.
    signed: only JPEG 2000 knows.
    """

    marker: int
    columns: int
    rows: int
    samples: int
    bits: int
    signed: bool = False

    @property
    def lossless_jpeg(self) -> bool:
        """Whether this is JPEG process 14, or a rare relative of it."""
        return self.marker in _LOSSLESS

    @property
    def lossy_jpeg(self) -> bool:
        """Whether this is JPEG by cosine transform: baseline, extended or progressive."""
        return self.marker in _FRAMES - _LOSSLESS - {JPEG_LS}


def read_codestream(content: bytes) -> Codestream:
    """Return what a compressed picture declares.

    Raises:
        Unreadable: damaged, if there is no such declaration; truncated, if the picture ends before it.
    """
    try:
        if content.startswith(b"\xff\xd8\xff"):
            return _jpeg(content)
        if content.startswith(b"\xff\x4f\xff\x51"):
            return _jpeg_2000(content, 0)
        if content.startswith(b"\0\0\0\x0cjP  "):  # a whole JP2 file, which DICOM does not allow and some machines write
            at = content.find(b"jp2c\xff\x4f\xff\x51", 0, 4096)
            if at > 0:
                return _jpeg_2000(content, at + 4)
    except (struct.error, IndexError):
        raise Unreadable("truncated", "the compressed picture ends within its header") from None
    raise Unreadable("damaged", "no JPEG, JPEG-LS or JPEG 2000 picture inside")


def _jpeg(content: bytes) -> Codestream:
    at = 2
    while True:
        if content[at] != 0xFF:
            raise Unreadable("damaged", "no frame header in the JPEG picture")
        marker = content[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _BARE:
            at += 2
        elif marker in _FRAMES:
            bits, rows, columns, samples = struct.unpack_from(">BHHB", content, at + 4)
            return Codestream(marker, columns, rows, samples, bits)
        elif marker in (0xD9, 0xDA):
            raise Unreadable("damaged", "no frame header in the JPEG picture")
        else:
            at += 2 + max(struct.unpack_from(">H", content, at + 2)[0], 2)


def _jpeg_2000(content: bytes, start: int) -> Codestream:
    right, lower, left, upper = struct.unpack_from(">4I", content, start + 8)
    samples, depth = struct.unpack_from(">HB", content, start + 40)
    return Codestream(JPEG_2000, right - left, lower - upper, samples, (depth & 0x7F) + 1, bool(depth & 0x80))
