"""The locks as they are committed: one exact file for each line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from firmware_configs.wheelhouse.targets import LOCKS, PIP_LOCK

CENTRE_LOCK = LOCKS / "centre-py311.txt"
_LINE = re.compile(r"([a-z0-9][a-z0-9.-]*)==([^\s;]+)((?:\s+--hash=sha256:[0-9a-f]{64})+)")


class NotALock(ValueError):
    """A line of a lock is something else than one pinned and hashed package."""


@dataclass(frozen=True)
class Pinned:
    """One package: normalised name, exact version, SHA-256 of each file that may be taken for it."""

    name: str
    version: str
    sha256: tuple[str, ...]


def read_lock(path: Path) -> list[Pinned]:
    """Return what a requirements file for pip's --require-hashes names, in its order.

    Raises:
        NotALock: with the line that is none.
    """
    text = path.read_text("utf-8").replace("\\\n", " ")
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    return [_pinned(path, line) for line in lines if line]


def _pinned(path: Path, line: str) -> Pinned:
    match = _LINE.fullmatch(line)
    if match is None:
        raise NotALock(f"{path.name}: {line!r} is not NAME==VERSION with its --hash=sha256. Write the locks again: make locks.")
    return Pinned(match[1], match[2], tuple(re.findall("[0-9a-f]{64}", match[3])))


def device_locks() -> list[Path]:
    """Return the locks of all kinds of boards."""
    return sorted(path for path in LOCKS.glob("*-py*.txt") if path != CENTRE_LOCK)


def all_locks() -> list[Path]:
    """Return every lock: boards, centre, and pip, which installs on a board."""
    return [*device_locks(), *(path for path in (CENTRE_LOCK, PIP_LOCK) if path.exists())]
