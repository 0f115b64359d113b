"""Reading outcomes out of a damaged database: page by page, trusting nothing but the outcomes themselves.

Every page of the database, as the log has it where the log is sound, and then what is left of the log, is taken for a leaf of a
table; what does not read as an outcome of this device under the contract is passed over. So neither the header, nor the schema,
nor the inner pages have to be there. An outcome carries its epoch and seq in its payload, so that an old copy of a row,
found on a page that is no longer in use, is at worst sent a second time, which the centre knows how to take.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from edge.contract.codec import recorded_outcome
from edge.contract.messages import MAX_BYTES
from edge.outbox.wal import LogPages, read_log

PAGE = 4096
"""Bytes of a page; SQLite's default, which the outbox does not change."""

_LEAF = 0x0D
_MOST = 4 * MAX_BYTES
_EPOCH = re.compile(r"[0-9a-f]{32}")


class Saved(NamedTuple):
    """An outcome that could be read, with the other columns of its row."""

    epoch: str
    seq: int
    source_key: str
    pixel_hash: str | None
    kind: str
    payload: bytes
    receipted: int
    quarantined: str | None
    original_name: str
    place: str
    crc: int


class LastSeq(NamedTuple):
    """What the damaged outbox knew of one of its epochs."""

    epoch: str
    last_seq: int


def salvage(path: Path, device: str) -> Iterator[Saved | LastSeq]:
    """Yield all that can be read of an outbox of `device`. The same outcome may come several times; the first is the newest."""
    pages = _Pages(path)
    try:
        for number, page in pages:
            for values in _rows(pages, number, page):
                found = _outcome(values, device) or _last_seq(values, device)
                if found is not None:
                    yield found
    finally:
        pages.close()


class _Pages:
    """Pages of the database and its log by number; a page that the disk does not give is skipped."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if path.exists() else None
        self._count = -(-os.fstat(self._file).st_size // PAGE) if self._file is not None else 0
        self._log: LogPages = read_log(path.with_name(path.name + "-wal"), PAGE)
        self._beyond = dict(reversed(self._log.others))

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        for number in {*range(1, self._count + 1), *self._log.newest}:
            if (page := self.get(number)) is not None:
                yield number, page
        yield from self._log.others

    def get(self, number: int) -> bytes | None:
        if (logged := self._log.newest.get(number)) is not None:
            return logged
        if self._file is None or not 1 <= number <= self._count:
            return self._beyond.get(number)  # new since the last checkpoint of a log that is broken
        try:
            page = os.pread(self._file, PAGE, (number - 1) * PAGE)
        except OSError:
            return None
        return page if len(page) == PAGE else None


def _rows(pages: _Pages, number: int, page: bytes) -> Iterator[list[Any]]:
    start = 100 if number == 1 else 0
    if page[start] != _LEAF:
        return
    cells = int.from_bytes(page[start + 3 : start + 5], "big")
    for cell in range(min(cells, (PAGE - start - 8) // 2)):
        pointer = start + 8 + 2 * cell
        try:
            yield _values(_payload(pages, page, int.from_bytes(page[pointer : pointer + 2], "big")))
        except (IndexError, ValueError):
            continue


def _payload(pages: _Pages, page: bytes, at: int) -> bytes:
    """Return the record of the cell that begins at `at`, with what overflowed into other pages."""
    size, at = _varint(page, at)
    _, at = _varint(page, at)
    if size > _MOST:
        raise ValueError("no row of an outbox is that large")
    most, least = PAGE - 35, (PAGE - 12) * 32 // 255 - 23
    local = size
    if size > most:
        local = least + (size - least) % (PAGE - 4)
        local = local if local <= most else least
    record = page[at : at + local]
    following = int.from_bytes(page[at + local : at + local + 4], "big")
    while len(record) < size:
        more = pages.get(following)
        if more is None:
            raise ValueError("the rest of the row is missing")
        record += more[4 : 4 + size - len(record)]
        following = int.from_bytes(more[:4], "big")
    return record


def _values(record: bytes) -> list[Any]:
    """Return the columns of a record, in SQLite's own format."""
    header, at = _varint(record, 0)
    body, values = header, list[Any]()
    while at < header:
        kind, at = _varint(record, at)
        if kind == 0:
            values.append(None)
        elif kind in {8, 9}:
            values.append(kind - 8)
        elif kind <= 6:
            size = (0, 1, 2, 3, 4, 6, 8)[kind]
            values.append(int.from_bytes(_taken(record, body, size), "big", signed=True))
            body += size
        elif kind >= 12:
            size = (kind - 12) // 2
            raw = _taken(record, body, size)
            values.append(raw.decode() if kind % 2 else raw)
            body += size
        else:
            raise ValueError("an outbox has no such column")
    return values


def _taken(record: bytes, at: int, size: int) -> bytes:
    raw = record[at : at + size]
    if len(raw) != size:
        raise ValueError("the row ends early")
    return raw


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = 0
    for _ in range(8):
        byte = raw[at]
        at += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at
    return value << 8 | raw[at], at + 1


def _outcome(values: list[Any], device: str) -> Saved | None:
    if len(values) == 9 and isinstance(values[4], bytes):
        values = [*values, zlib.crc32(values[4])]  # of the first layout
    if len(values) != 10 or not isinstance(values[4], bytes) or values[5] not in {0, 1} or zlib.crc32(values[4]) != values[9]:
        return None
    if not all(isinstance(values[column], str) for column in (1, 3, 7, 8)):
        return None
    if not all(values[column] is None or isinstance(values[column], str) for column in (2, 6)):
        return None
    outcome = recorded_outcome(values[4])
    if outcome is None or outcome.device != device:
        return None
    return Saved(outcome.epoch, outcome.seq, *values[1:])


def _last_seq(values: list[Any], device: str) -> LastSeq | None:
    if len(values) != 4 or values[1] != device or not isinstance(values[2], str) or not _EPOCH.fullmatch(values[2]):
        return None
    return LastSeq(values[2], values[3]) if isinstance(values[3], int) and values[3] >= 0 else None
