"""Reading SQLite's write-ahead log without SQLite: which pages it holds, as far as its checksums bear it out."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_MAGIC = 0x377F0682
_HEADER, _FRAME = 32, 24


@dataclass(frozen=True)
class LogPages:
    """`newest`: the committed pages by number. `others`: what else lies in the log, (page number, content), newest first."""

    newest: dict[int, bytes] = field(default_factory=dict)
    others: list[tuple[int, bytes]] = field(default_factory=list)


def read_log(path: Path, page: int) -> LogPages:
    """Read the log of a database with pages of `page` bytes; a missing or broken one gives what there is."""
    try:
        raw = path.read_bytes()
    except OSError:
        return LogPages()
    frames = [(at, int.from_bytes(raw[at : at + 4], "big")) for at in range(_HEADER, len(raw) - _FRAME - page + 1, _FRAME + page)]
    sound = _sound(raw, page)
    committed = max(
        (index + 1 for index in range(sound) if raw[frames[index][0] + 4 : frames[index][0] + 8] != bytes(4)), default=0
    )

    def content(at: int) -> bytes:
        return raw[at + _FRAME : at + _FRAME + page]

    return LogPages(
        {number: content(at) for at, number in frames[:committed]},
        [(number, content(at)) for at, number in reversed(frames[committed:])],
    )


def _sound(raw: bytes, page: int) -> int:
    """Return how many frames from the start have the header's salt and an unbroken chain of checksums."""
    if len(raw) < _HEADER or int.from_bytes(raw[:4], "big") & ~1 != _MAGIC or int.from_bytes(raw[8:12], "big") != page:
        return 0
    order = ">" if raw[3] & 1 else "<"
    sums = _checksum(raw[:24], order, (0, 0))
    if sums != struct.unpack(">II", raw[24:32]):
        return 0
    count = 0
    for at in range(_HEADER, len(raw) - _FRAME - page + 1, _FRAME + page):
        if raw[at + 8 : at + 16] != raw[16:24]:
            break
        sums = _checksum(raw[at : at + 8] + raw[at + _FRAME : at + _FRAME + page], order, sums)
        if sums != struct.unpack(">II", raw[at + 16 : at + 24]):
            break
        count += 1
    return count


def _checksum(raw: bytes, order: str, sums: tuple[int, int]) -> tuple[int, int]:
    one, two = sums
    words: Iterator[tuple[int, int]] = struct.iter_unpack(order + "II", raw)
    for first, second in words:
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return one, two
