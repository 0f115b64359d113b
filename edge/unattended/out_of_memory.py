"""Whom the kernel ends when the memory of the board, or the share of the device, is used up."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path

_OWN = Path("/proc/self/oom_score_adj")
_FIRST = 600
"""proc(5). Above every unit of the device (OOMScoreAdjust), and not 1000: it counts for 60% of the memory beside what it holds, and
a process that holds nearly all is still ended instead of a child that is idle."""
_PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 3, 4


def be_ended_first() -> None:
    """Let the kernel end this process before those that started it: for a child that holds a film and can be started again.

    To ask for that needs no right. But the files of a process that forbids core dumps are root's (proc(5), prctl(2)), and a child
    that was forked has inherited that, so it is lifted for this one write. A system without such a file is left as it is.
    """
    prctl = ctypes.CDLL(None).prctl
    forbidden = prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) != 1
    if forbidden:
        prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
    try:
        with contextlib.suppress(OSError):
            _OWN.write_bytes(b"%d\n" % _FIRST)
    finally:
        if forbidden:
            prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
