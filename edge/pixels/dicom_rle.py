"""DICOM's run-length encoding (PS3.5 annex G), never more bytes out than the header asks for.

pydicom's own decoder has no such bound (28 MB became 3.7 GB), and takes running out of memory for damage.
"""

from __future__ import annotations

import struct
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from edge.errors import Unreadable

_AT_ONCE = 1 << 20
"""Bytes that are unpacked before they are put where they belong: a plane of a large film has no room to be there twice."""
_LONGEST_RUN = 129


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
    cells = np.empty((rows * columns, samples, cell_bytes), np.uint8)
    for number, (start, end) in enumerate(pairwise((*starts, len(content)))):
        sample, byte = divmod(number, cell_bytes)  # the most significant byte comes first
        _unpack(content, start, min(end, len(content)), cells[:, sample, cell_bytes - 1 - byte])
    return cells.reshape(rows, columns, samples, cell_bytes)


def _unpack(content: bytes, start: int, end: int, plane: npt.NDArray[np.uint8]) -> None:
    """Fill a plane, every so many bytes of the picture, from the segment between `start` and `end`."""
    at, done = start, 0
    while done < plane.size:
        if at >= end:
            raise Unreadable("truncated", f"a run-length segment of {done} bytes, {plane.size} are expected")
        window = content[at : min(at + _AT_ONCE + _LONGEST_RUN, end)]
        part, read = _unpacked(window, len(window) if at + len(window) == end else _AT_ONCE, min(_AT_ONCE, plane.size - done))
        fits = min(len(part), plane.size - done)
        plane[done : done + fits] = np.frombuffer(part, np.uint8, fits)
        at, done = at + read, done + fits


def _unpacked(window: bytes, end: int, enough: int) -> tuple[bytearray, int]:
    """Return the bytes of the runs that begin before `end`, and how far they reach.

    After `enough` bytes no repeat is begun: these alone can make more of a file than it is.
    """
    part, at = bytearray(), 0
    while at < end:
        head = window[at]
        if head < 128:
            part += window[at + 1 : at + 2 + head]
            at += 2 + head
        elif head > 128:
            if len(part) >= enough:
                break
            part += window[at + 1 : at + 2] * (257 - head)
            at += 2
        else:  # stands for nothing
            at += 1
    return part, at
