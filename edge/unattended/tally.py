"""What has happened on this device since it was set up, as numbers that only grow: for the metrics.

Each file has one writer, is overwritten in place and never forced to the disk: a power cut may lose the last few, which no outcome
depends on.

    tally.infer       outcomes by kind, reasons of those without an answer, seconds of work
    starts/NAME       how often each process began in this boot
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from edge.clock import boot_id
from edge.contract.errors import UNREADABLE

STEPS = ("decode", "total")


class Tally(msgspec.Struct):
    """Of all intakes. `microseconds` by step ("decode", "total"): the sum over `timed` results."""

    outcomes: dict[str, int] = {}
    unanswered: dict[str, int] = {}
    microseconds: dict[str, int] = {}
    timed: int = 0


class TallyFile:
    """The tally of one device, for the one process that counts."""

    def __init__(self, state: Path) -> None:
        """Go on from what is there. Raises OSError if it cannot be opened for writing."""
        self._tally = read_tally(state)
        self._file = os.open(_of_infer(state), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._write()

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def note(self, kind: str, reason: str, timings_ms: Mapping[str, float]) -> None:
        """Count one new outcome; `reason` is empty and `timings_ms` not where it is a result."""
        tally = self._tally
        tally.outcomes[kind] = tally.outcomes.get(kind, 0) + 1
        if reason:
            tally.unanswered[reason] = tally.unanswered.get(reason, 0) + 1
        if timings_ms:
            tally.timed += 1
            for step in STEPS:
                tally.microseconds[step] = tally.microseconds.get(step, 0) + round(timings_ms.get(step, 0.0) * 1e3)
        self._write()

    def _write(self) -> None:
        with contextlib.suppress(OSError):  # the outcome counts more
            os.pwrite(self._file, msgspec.json.encode(self._tally), 0)  # whole numbers that grow: never shorter than before


def read_tally(state: Path) -> Tally:
    """Return what was counted; nothing if that cannot be read."""
    try:
        return msgspec.json.decode(_of_infer(state).read_bytes(), type=Tally)
    except (OSError, *UNREADABLE):
        return Tally()


def note_start(state: Path, name: str) -> None:
    """Count that a process begins. What the disk does not take is not counted."""
    count = read_restarts(state).get(name, -1) + 2
    try:
        (state / "starts").mkdir(exist_ok=True, mode=0o700)
        (state / "starts" / name).write_text(f"{boot_id()} {count}\n", "ascii")
    except OSError:
        return


def read_restarts(state: Path) -> dict[str, int]:
    """Return how often each process began in this boot, beyond the first time."""
    found = {}
    folder = state / "starts"
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        boot, _, count = path.read_text("ascii", "replace").strip().partition(" ")
        if boot == boot_id() and count.isdecimal():
            found[path.name] = int(count) - 1
    return found


def began_again(state: Path, name: str, within_s: float) -> bool:
    """Return whether a process has begun in the last seconds, and not for the first time in this boot."""
    try:
        age = time.time() - (state / "starts" / name).stat().st_mtime
    except OSError:
        return False
    return 0 <= age < within_s and read_restarts(state).get(name, 0) > 0


def _of_infer(state: Path) -> Path:
    return state / "tally.infer"
