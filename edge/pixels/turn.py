"""One film at a time in the memory of a board, whichever process reads it: `infer` for an answer, the page to show it."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

_LOOK_S = 0.02


def turn_of(state: Path) -> Path:
    """Return the file whose lock is the turn."""
    return state / "decoding.lock"


@contextlib.contextmanager
def turn(file: Path | None, patience_s: float | None = None) -> Iterator[None]:
    """Hold the turn within; without a file there is none to wait for.

    After `patience_s` seconds go on all the same: a film that is shown may never keep one from being answered. None: wait.
    """
    if file is None:
        yield
        return
    with file.open("a") as lock:
        if patience_s is None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        else:
            _try(lock.fileno(), time.monotonic() + patience_s)
        yield


def _try(lock: int, deadline: float) -> None:
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if time.monotonic() >= deadline:
            return
        time.sleep(_LOOK_S)
