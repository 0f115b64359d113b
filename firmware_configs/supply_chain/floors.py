"""Versions below which something is known to be unsafe: what can be asked of the locks without a network."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from firmware_configs.supply_chain.pinned import all_locks, read_lock
from firmware_configs.wheelhouse.targets import LOCKS

FLOORS = LOCKS / "floors.txt"
_LINE = re.compile(r"([a-z0-9-]+) >= ([0-9][0-9.]*)  # (.+)")


@dataclass(frozen=True)
class Floor:
    """The first safe version of a package, and what was wrong before."""

    name: str
    version: Version
    reason: str


def read_floors(path: Path = FLOORS) -> list[Floor]:
    """Return the list.

    Raises:
        ValueError: if a line has not the form NAME >= VERSION, two spaces, # REASON.
    """
    found = []
    for line in path.read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            match = _LINE.fullmatch(line)
            if match is None:
                raise ValueError(f"{path.name}: {line!r} is not of the form `name >= version  # reason`")
            found.append(Floor(match[1], Version(match[2]), match[3]))
    return found


def below(lock: Path, floors: list[Floor]) -> list[str]:
    """Return a sentence for each package of a lock that is older than a floor asks."""
    advice = "Write the locks again: make locks."
    return [
        f"{lock.name}: {pinned.name} {pinned.version} is older than {floor.version}: {floor.reason}. {advice}"
        for pinned in read_lock(lock)
        for floor in floors
        if floor.name == pinned.name and Version(pinned.version) < floor.version
    ]


def all_below() -> list[str]:
    """Return the same of every lock."""
    floors = read_floors()
    return [sentence for lock in all_locks() for sentence in below(lock, floors)]
