"""What every process of the device does before it touches a picture: nobody else reads its files, its memory or a dump of it."""

from __future__ import annotations

import ctypes
import os
import resource
from pathlib import Path

_PR_SET_DUMPABLE = 4
_OTHERS = 0o077


def begin_private() -> None:
    """Keep files that are made from now on to this user, and forbid core dumps."""
    os.umask(_OTHERS)
    forbid_core_dumps()


def forbid_core_dumps() -> None:
    """Let no core dump be made of this process, whose memory holds names and keys.

    The limit stops a file. A program that the kernel hands dumps to (systemd-coredump) is stopped by the second alone, and so are
    others of the same user who would read the memory; it ends at exec, so each program has to ask for it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def open_to_others(path: Path) -> bool:
    """Return whether another user of this machine may read a file, or look into a folder; False if it is not there."""
    try:
        return bool(path.stat().st_mode & _OTHERS)
    except OSError:
        return False
