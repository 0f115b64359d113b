"""A small disk of the device's own, which some other program fills.

It is a tmpfs in a mount namespace of the simulation alone: nobody else sees it, and it goes with the last process, however that
ends.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from edge.intake.spool import free_bytes
from tests.support.processes import find_program

_INSIDE = "SOAK_NAMESPACE"


def enter_namespace(arguments: list[str]) -> None:
    """Go on as `python -m tests.soak ARGUMENTS` in a mount namespace of its own, where any user may mount; once there, return."""
    if _INSIDE in os.environ:
        return
    os.environ[_INSIDE] = "1"
    # Others than root first need a user namespace, in which they are root.
    way = "--mount" if os.getuid() == 0 else "--user --map-root-user --mount"
    _become([find_program("unshare", "util-linux"), *way.split(), "--", sys.executable, "-m", "tests.soak", *arguments])


def _become(command: list[str]) -> NoReturn:
    sys.stdout.flush()
    os.execv(command[0], command)


class Disk:
    """A file system of `size` bytes at `path`."""

    def __init__(self, path: Path, size: int) -> None:
        path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "none", str(path)], check=True, timeout=20)
        self.path = path
        self._filler = path / "filler"

    @property
    def is_full(self) -> bool:
        """Whether something has filled it."""
        return self._filler.exists()

    def fill(self, leave: int = 0) -> None:
        """Take all that is free but `leave` bytes."""
        handle = os.open(self._filler, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            # The device writes too, so that what was free a moment ago may not be any more.
            while (free := free_bytes(self.path) - leave) > 0:
                try:
                    os.posix_fallocate(handle, os.fstat(handle).st_size, free)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
        finally:
            os.close(handle)

    def free(self) -> None:
        """Give it all back."""
        self._filler.unlink(missing_ok=True)
