"""The order in which files came into a folder, kept in their modification times, whatever the clock says.

A board without a clock begins each day in 1970, and copying programs keep the sender's time: the newest film would be the first
to go.
"""

from __future__ import annotations

import os
import time
from pathlib import Path


class Succession:
    """Of one folder; for the one process that puts files there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last: int | None = None

    def stamp(self, path: Path) -> None:
        """Make a file the newest of the folder. Raises OSError if it has gone."""
        if self._last is None:
            with os.scandir(self._folder) as entries:
                self._last = max((entry.stat().st_mtime_ns for entry in entries if Path(entry.path) != path), default=0)
        self._last = max(time.time_ns(), self._last + 1)
        os.utime(path, ns=(self._last, self._last))
