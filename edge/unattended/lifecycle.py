"""How a process of the device begins and ends: one of each kind, told to stop by a signal, ended with its supervisor."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from edge.errors import CxrError
from edge.unattended.hardening import open_to_others
from edge.unattended.tally import note_start

_PR_SET_PDEATHSIG = 1


class Stop:
    """Becomes set when the process is asked to end (SIGTERM or Ctrl-C)."""

    def __init__(self, told: Callable[[], object] = lambda: None) -> None:
        """Args: told: called at once when the process is asked, while its work goes on."""
        self._asked = False
        self._told = told
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def is_set(self) -> bool:
        """Return whether the process should finish what it has in hand and end."""
        return self._asked

    def _ask(self, number: int, frame: object) -> None:
        self._asked = True
        self._told()


def only_one(state: Path, name: str) -> TextIO:
    """Hold a lock as long as the returned file is open, so that one process of each kind runs on one state folder.

    The folder becomes this user's alone, also where it was made by other means.

    Raises:
        CxrError: if another one runs.
    """
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    if open_to_others(state):
        state.chmod(0o700)
    file = (state / f"{name}.lock").open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise CxrError(f"Another `cxr-edge {name}` already works on {state}. Stop it first.") from None
    note_start(state, name)
    return file


def is_running(state: Path, name: str) -> bool:
    """Return whether a process of that kind works on a state folder; changes nothing."""
    try:
        with (state / f"{name}.lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is no lock, or this user may not look
        return False
    return False


def end_with(parent: int, by: signal.Signals = signal.SIGTERM) -> None:
    """Ask the kernel to end this process by a signal when its parent dies, however it dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, by)
    if os.getppid() != parent:  # it died before the request was made
        raise SystemExit(0)
