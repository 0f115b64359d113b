"""The watched folder: a file that is finished goes into the spool, one that is still being written waits.

inotify tells of files that were closed after writing or moved in; a periodic rescan finds what gave no event (a network
mount, files that came while nobody watched) and takes it once it has not changed for a while and nobody has it open for writing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from inotify_simple import INotify, flags

from edge.config import Watch
from edge.intake.spool import Spool
from edge.unattended.lifecycle import Stop
from edge.unattended.notify import nothing

log = logging.getLogger(__name__)

_UNFINISHED = (".part", ".tmp", ".partial", ".crdownload", ".filepart")

_UNTOLD = 3
"""How many times as long as others a file has to be quiet of which the system does not tell whether someone writes it."""


class FolderWatch:
    """Moves finished files of one folder into the spool."""

    def __init__(self, settings: Watch, spool: Spool, has_room: Callable[[], bool] = lambda: True, max_bytes: int = 2**62) -> None:
        """Start listening. While `has_room` says no, every file stays where it is; see `Spool.admit` for `max_bytes`.

        Raises:
            OSError: if the folder is not there or the system's inotify limit is reached.
        """
        self._settings = settings
        self._folder = Path(settings.folder)
        self._spool = spool
        self._has_room = has_room
        self._max_bytes = max_bytes
        self._refusing = False
        self._seen: dict[str, tuple[int, int, float]] = {}
        self._complained: set[str] = set()
        self._notify = INotify()
        self._notify.add_watch(self._folder, flags.CLOSE_WRITE | flags.MOVED_TO | flags.ONLYDIR)

    def run_once(self, timeout_s: float) -> int:
        """Wait for events at most `timeout_s` seconds, take what is finished, return how many files were taken.

        Raises:
            FileNotFoundError: if the folder itself has gone; a new watch is then needed.
        """
        events = self._notify.read(timeout=int(timeout_s * 1e3))
        if any(event.mask & flags.IGNORED for event in events):
            raise FileNotFoundError(errno.ENOENT, "the watched folder was removed or unmounted", str(self._folder))
        return sum(self._take(self._folder / name) for name in dict.fromkeys(event.name for event in events if event.name))

    def rescan(self) -> int:
        """Look at every file of the folder; return how many were taken.

        Raises:
            OSError: if the folder cannot be read.
        """
        now = time.monotonic()
        seen: dict[str, tuple[int, int, float]] = {}
        taken = 0
        with os.scandir(self._folder) as entries:
            found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries if _is_candidate(entry)]
        for name, status in sorted(found):
            size, changed = status.st_size, status.st_mtime_ns
            known = self._seen.get(name)
            since = known[2] if known and known[:2] == (size, changed) else now
            if self._is_finished(self._folder / name, now - since):
                taken += self._take(self._folder / name)
            else:
                seen[name] = (size, changed, since)
        self._seen = seen
        return taken

    @property
    def settling(self) -> bool:
        """Whether the last rescan has left something that may still be written."""
        return bool(self._seen)

    def close(self) -> None:
        """Stop listening."""
        self._notify.close()

    def _is_finished(self, path: Path, quiet_s: float) -> bool:
        """Whether a file has not changed for long enough, which is longer where nobody tells who writes it."""
        if quiet_s < self._settings.settle_s:
            return False
        written = _being_written(path)
        return quiet_s >= _UNTOLD * self._settings.settle_s if written is None else not written

    def _take(self, path: Path) -> bool:
        if not _is_candidate(path) or not self._may_take():
            return False
        try:
            self._spool.admit(path, self._max_bytes)
        except BlockingIOError:
            return False  # it is being written; the end of that has an event of its own, or a rescan finds it quiet
        except FileNotFoundError:
            return False  # renamed or removed meanwhile; its new name has an event of its own
        except OSError as error:
            # Said once for each kind of error, not for each file and rescan; the rescan tries again.
            if error.strerror not in self._complained:
                self._complained.add(error.strerror or "")
                log.error(
                    "A file in the watched folder cannot be taken in (%s). Make the folder writable for this service, "
                    "see that the disk is not full and that the file is no larger than max_file_mb; it stays and is tried again.",
                    error.strerror,
                )
            return False
        self._complained.clear()
        return True

    def _may_take(self) -> bool:
        """Say once, not for each file, that there is no room, and once that there is again."""
        refusing = not self._has_room()
        if refusing and not self._refusing:
            log.error(
                "No room for more X-rays: they stay in the watched folder and are taken when there is. Restore the link to the "
                "centre or free the disk; `cxr-edge check` says which."
            )
        elif self._refusing and not refusing:
            log.info("there is room again")
        self._refusing = refusing
        return not refusing


def _is_candidate(entry: os.DirEntry[str] | Path) -> bool:
    """A regular file whose name does not say that it is unfinished; a link could lead anywhere."""
    name = entry.name
    if name.startswith(".") or name.lower().endswith(_UNFINISHED):
        return False
    try:
        status = entry.stat(follow_symlinks=False) if isinstance(entry, os.DirEntry) else entry.lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode)


def _being_written(path: Path) -> bool | None:
    """Whether some process has the file open for writing; False where the file system cannot tell (a network mount).

    None if the system does not tell this user, as of a file that another one has put there.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except PermissionError:
        return None
    except OSError:
        return False
    else:
        with contextlib.suppress(OSError):
            fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return False
    finally:
        os.close(handle)


def watch_forever(watch: FolderWatch, settings: Watch, stop: Stop, progress: Callable[[], object] = nothing) -> None:
    """Take files until told to stop; `progress` is called when the folder was looked at and what was finished was taken."""
    next_scan = 0.0
    while not stop.is_set():
        if time.monotonic() >= next_scan:
            try:
                watch.rescan()
            except OSError as error:
                log.error("The watched folder cannot be read (%s). Is the disk or the network share there?", error.strerror)
            # What came while nobody watched, or gave no event, is taken once it has settled, and not a whole pause later.
            next_scan = time.monotonic() + (min(settings.settle_s, settings.rescan_s) if watch.settling else settings.rescan_s)
        watch.run_once(min(1.0, settings.rescan_s))
        progress()
