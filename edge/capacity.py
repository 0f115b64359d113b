"""How much room this device has left, cheap enough to ask for every file. Reads sizes only; opens no database.

Three things fill up: the results that wait for the centre, the disk, and the spool, which holds what `infer` has not read yet and
counts through the disk. At `alarm` people are told; at `full` no further file is taken in, and stays where its sender put it.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge.intake.spool import LEAST_FREE, free_bytes
from edge.outbox.size import outbox_bytes, room_for_outcomes

Level = Literal["ok", "alarm", "full"]

ALARM_SHARE = 0.8
_AGAIN_S = 1.0
_MIB = 2**20


@dataclass(frozen=True)
class Room:
    """What was found: sizes in bytes."""

    results: int
    results_limit: int
    disk_free: int
    least_free: int
    spooled: int
    spooled_files: int

    @property
    def level(self) -> Level:
        """The worse of disk and results."""
        if self.results >= self.results_limit or self.disk_free < self.least_free:
            return "full"
        if self.results >= ALARM_SHARE * self.results_limit or self.disk_free < 2 * self.least_free:
            return "alarm"
        return "ok"

    def sentence(self) -> str:
        """Return it in words, for the log and for `cxr-edge check`."""
        return (
            f"results take {self.results / _MIB:.0f} of {self.results_limit / _MIB:.0f} MiB, "
            f"{self.disk_free // _MIB} MiB of the disk are free (at least {self.least_free // _MIB} are needed), "
            f"{self.spooled_files} files with {self.spooled // _MIB} MiB wait in the spool"
        )


class Capacity:
    """Looks at one device's state folder, at most once a second."""

    def __init__(self, state: Path, results_bytes: int, least_free: int = LEAST_FREE) -> None:
        """Args: results_bytes: what the outbox may take, log included; least_free: of the disk; the alarm comes at twice that."""
        self._state = state
        self._limit = room_for_outcomes(results_bytes)
        self._least_free = least_free
        self._known: tuple[float, Room] | None = None

    def room(self) -> Room:
        """Return what there is, as it was at most a second ago.

        Raises:
            OSError: if the state folder cannot be read.
        """
        now = time.monotonic()
        if self._known is None or now - self._known[0] >= _AGAIN_S:
            self._known = (now, self._look())
        return self._known[1]

    def level(self) -> Level:
        """Return "ok", "alarm" (people should act) or "full" (nothing is taken in)."""
        return self.room().level

    def has_room(self) -> bool:
        """Return whether a further file may be taken in."""
        return self.level() != "full"

    def _look(self) -> Room:
        files = _sizes(self._state / "spool")
        return Room(
            results=outbox_bytes(self._state / "outbox.db"),
            results_limit=self._limit,
            disk_free=free_bytes(self._state),
            least_free=self._least_free,
            spooled=sum(files),
            spooled_files=len(files),
        )


def _sizes(folder: Path) -> list[int]:
    sizes = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    sizes.append(entry.stat(follow_symlinks=False).st_size)
                except FileNotFoundError:
                    continue  # answered meanwhile
    except FileNotFoundError:
        return []
    return sizes
