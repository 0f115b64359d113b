"""DICOM's run-length encoding (PS3.5 annex G), never more bytes out than the header asks for.

pydicom's own decoder has no such bound (28 MB became 3.7 GB), and takes running out of memory for damage.
"""

from __future__ import annotations

import contextlib
import struct
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from edge.errors import Unreadable


def decode_rle(content: bytes, rows: int, columns: int, samples: int, cell_bytes: int) -> npt.NDArray[np.uint8]:
    """Return the bytes of a picture, shape (rows, columns, samples, cell_bytes), least significant first.

    What follows a complete segment is left alone: encoders pad.

    Raises:
        Unreadable: damaged, if there are other segments than samples and bytes ask for; truncated, if one ends early.
    """
    count = samples * cell_bytes
    if len(content) < 64:
        raise Unreadable("truncated", "the run-length header is cut short")
    declared, *starts = struct.unpack_from(f"<{1 + count}I", content)
    if declared != count:
        raise Unreadable("damaged", f"{declared} run-length segments instead of {count}")
    cells = np.empty((rows, columns, samples, cell_bytes), np.uint8)
    for number, (start, end) in enumerate(pairwise((*starts, len(content)))):
        sample, byte = divmod(number, cell_bytes)  # the most significant byte comes first
        plane = _unpacked(content[start:end], rows * columns)
        cells[:, :, sample, cell_bytes - 1 - byte] = np.frombuffer(plane, np.uint8, rows * columns).reshape(rows, columns)
    return cells


def _unpacked(segment: bytes, size: int) -> bytearray:
    plane = bytearray()
    at = 0
    with contextlib.suppress(IndexError):  # the segment's end
        while True:
            head = segment[at]
            if head < 128:
                plane += segment[at + 1 : at + 2 + head]
                at += 2 + head
            elif head > 128:
                if len(plane) >= size:  # only repeats can make more of a file than it is
                    break
                plane += segment[at + 1 : at + 2] * (257 - head)
                at += 2
            else:  # stands for nothing
                at += 1
    if len(plane) < size:
        raise Unreadable("truncated", f"a run-length segment of {len(plane)} bytes, {size} are expected")
    return plane
