"""Which intake is in hand, what has become of it, and how often it was begun: for a process that may end at any moment.

One that ends the process each time is given up and not tried for ever. One whose outcome is committed is only moved away: read
again, it could end otherwise, and would then count twice.

A few bytes written without fsync: a power cut is no fault of the picture and need not count. They overwrite the last ones in place,
because closing a file that was truncated makes ext4 write it out at once, which takes a millisecond.
"""

from __future__ import annotations

import os
from pathlib import Path

from edge.intake.spool import Intake

_NOTHING = "-"


class Trials:
    """Of one device; `infer` alone uses it."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        words = os.pread(self._file, 200, 0).partition(b"\n")[0].decode("ascii", "replace").split()
        self._last, count, self._done, self._mark = words if len(words) == 4 else ("", "0", _NOTHING, _NOTHING)
        self._count = int(count) if count.isdigit() else 0

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def begin(self, intake: Intake) -> int:
        """Note that work on an intake begins; return how many times in a row it has without an end, this one included."""
        count = self._count + 1 if intake.id == self._last else 1
        self._note(intake.id, count)
        return count

    def excuse(self) -> None:
        """The intake in hand is not to blame for what happened: do not count this time."""
        self._note(self._last, 0)

    def committed(self, intake: Intake, place: str) -> None:
        """Note that the outcome of the intake in hand is in the outbox, and its file not yet at its `place`, as `Spool.place`."""
        self._note(intake.id, 0, place, _mark(intake))

    def left_over(self, intake: Intake) -> str | None:
        """Return the place that `committed` named if this very file is the one that it was noted of, else None.

        A machine that sends an object again sends another file of the same id.
        """
        if intake.id != self._last or self._done == _NOTHING or self._mark != _mark(intake):
            return None
        return self._done

    def _note(self, intake_id: str, count: int, done: str = _NOTHING, mark: str = _NOTHING) -> None:
        self._last, self._count, self._done, self._mark = intake_id, count, done, mark
        os.pwrite(self._file, f"{intake_id} {count:4d} {done:>60} {mark:>40}\n".encode("ascii", "replace"), 0)


def _mark(intake: Intake) -> str:
    """Return what no other file of the spool has: numbers of removed files are given again, at another time."""
    try:
        status = os.stat(intake.path)
    except OSError:
        return _NOTHING
    return f"{status.st_ino}.{status.st_ctime_ns}"
