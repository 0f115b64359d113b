"""The spool: files that the device has taken in and not yet answered, and where they go afterwards.

A file enters by one rename, so it is there whole or not at all. Its name is `<intake id>~<sender's name>`: the id is made
from the file itself, so that an intake repeated after a crash gets the same id, and with it the same outcome. What comes
over the network brings an id made from its content, since it has no file of its own that would tell two intakes apart.

    arriving/  parts of files that come over the network; worth nothing after a restart
    spool/     taken in, waiting for an outcome
    done/      answered; the oldest are removed when there are too many bytes
    aside/     refused or unreadable; never removed by the device
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge.durable import fsync_folder
from edge.intake.succession import Succession
from edge.unattended.notify import nothing

LEAST_FREE = 256 * 2**20
"""Bytes of free disk below which nothing is taken in."""

_SUFFIXES = frozenset({".dcm", ".dicom", ".png", ".jpg", ".jpeg", ".tif", ".tiff"})
_NAME_BYTES = 180
_NO_LIMIT = 2**62
_PIECE = 1 << 18
_FORCED_EACH = 4 << 20


@dataclass(frozen=True)
class Intake:
    """One file in the spool."""

    id: str
    original_name: str
    path: Path


class Part:
    """A file that is being written and is not in the spool yet."""

    def __init__(self, folder: Path) -> None:
        """Make an empty one. Raises OSError if the disk does not take it."""
        handle, self.name = tempfile.mkstemp(dir=folder)
        self._file = os.fdopen(handle, "wb", buffering=1 << 17)

    def write(self, content: bytes | memoryview) -> None:
        """Append. Raises OSError if the disk does not take it."""
        self._file.write(content)

    def close_durably(self) -> None:
        """Force all that was written to the disk. Raises OSError if it does not take it."""
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())

    def remove(self) -> None:
        """Delete it."""
        with contextlib.suppress(OSError):  # closing writes what is buffered, which a full disk does not take
            self._file.close()
        with contextlib.suppress(OSError):
            os.unlink(self.name)


class Spool:
    """Folders of one device. Some processes put files in, one takes them out."""

    def __init__(self, state: Path, progress: Callable[[], object] = nothing) -> None:
        """Make the folders. `progress` is called while a large file is read or copied, which may take minutes from a slow disk."""
        self._progress = progress
        self.arriving = state / "arriving"
        self.incoming = state / "spool"
        self.done = state / "done"
        self.aside = state / "aside"
        for folder in (self.arriving, self.incoming, self.done, self.aside):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._order = Succession(self.done)

    def admit(self, path: Path, max_bytes: int = _NO_LIMIT) -> Intake:
        """Move a finished file into the spool, across file systems if need be.

        Args: max_bytes: what is larger is not copied from another file system; within one it costs no room.

        Raises:
            BlockingIOError: if it was written while it was copied; it stays.
            OSError: if the file has gone, or cannot be moved out of its folder, or there is no room for a copy of it.
        """
        intake = self._name(path)
        try:
            os.rename(path, intake.path)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._carry_over(path, intake.path, max_bytes)
        return intake

    def new_part(self) -> Part:
        """Begin a file of the network. Raises OSError if the disk does not take it."""
        return Part(self.arriving)

    def admit_part(self, part: Part, intake_id: str, name: str) -> Intake:
        """Move a whole file of the network into the spool; on return it and its name are on the disk.

        Raises:
            OSError: if the disk does not take it; the part is then still to be removed.
        """
        intake = Intake(intake_id, name, self.incoming / f"{intake_id}~{name}")
        part.close_durably()
        os.rename(part.name, intake.path)
        fsync_folder(self.incoming)
        return intake

    def remove_parts(self) -> None:
        """Delete what a process that ended left half received. Only for the one process that makes parts."""
        for path in self.arriving.iterdir():
            path.unlink()

    def remove_half_copied(self) -> None:
        """Delete what a process that ended left half copied from another file system. Only for the one process that copies."""
        for path in self.incoming.glob(".*.part"):
            path.unlink()

    def pending(self) -> list[Intake]:
        """Return what waits for an outcome, oldest first."""
        with os.scandir(self.incoming) as entries:
            files = [(entry.stat().st_mtime_ns, entry.name) for entry in entries if "~" in entry.name]
        return [self.intake(name) for _, name in sorted(files)]

    def names_waiting(self) -> set[str]:
        """Return the sender's names of what waits for an outcome; for a process that does not take files out."""
        return {name.partition("~")[2] for name in os.listdir(self.incoming) if "~" in name}

    def intake(self, name: str) -> Intake:
        """Return the intake of a file name in the spool."""
        intake_id, _, original = name.partition("~")
        return Intake(intake_id, original, self.incoming / name)

    def place(self, intake_id: str, original_name: str, *, answered: bool) -> str:
        """Return where a file will be once it has its outcome: folder and name, below the state folder.

        The name holds the intake id alone: a sender's file name may name the patient, and what stands behind its last dot as well.
        """
        suffix = Path(original_name).suffix.lower()
        suffix = suffix if suffix in _SUFFIXES else ""
        return f"{(self.done if answered else self.aside).name}/{intake_id}{suffix}"

    def make_durable(self, intake: Intake) -> str:
        """Force the file and its name to the disk; return the SHA-256 of its bytes (64 hex digits)."""
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(_PIECE))
        with intake.path.open("rb", buffering=0) as file:
            os.fsync(file.fileno())
            self._progress()
            while count := file.readinto(buffer):
                digest.update(buffer[:count])
                self._progress()
        fsync_folder(self.incoming)
        return digest.hexdigest()

    def settle(self, intake: Intake, place: str) -> Path:
        """Move a file with a committed outcome out of the spool to its place; doing it twice is fine. Return where it is."""
        target = self.incoming.parent / place
        try:
            os.rename(intake.path, target)
        except FileNotFoundError:
            if not target.exists():
                raise
        self._order.stamp(target)
        return target

    def trim_done(self, max_bytes: int, keep_free: int = 0) -> int:
        """Remove the oldest answered files until at most `max_bytes` are left and `keep_free` bytes of the disk are free.

        Return how many went.
        """
        with os.scandir(self.done) as entries:
            files = sorted((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path) for entry in entries)
        total = sum(size for _, size, _ in files)
        max_bytes = min(max_bytes, total - (keep_free - free_bytes(self.done)))
        removed = 0
        for _, size, name in files:
            if total <= max_bytes:
                break
            os.unlink(name)
            total -= size
            removed += 1
        return removed

    def _name(self, path: Path) -> Intake:
        stat = path.stat()
        # The change time cannot be set by a copying program, so the same name copied twice is two intakes.
        mark = f"{path.name}\0{stat.st_dev}\0{stat.st_ino}\0{stat.st_size}\0{stat.st_ctime_ns}"
        name = os.fsencode(path.name)
        short = os.fsdecode(name if len(name) <= _NAME_BYTES else name[:120] + name[-60:])
        intake_id = hashlib.sha256(mark.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        return Intake(intake_id, short, self.incoming / f"{intake_id}~{short}")

    def _carry_over(self, source: Path, target: Path, max_bytes: int) -> None:
        if not os.access(source.parent, os.W_OK):  # then the original stays, and would be copied at every look
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), source.parent)
        before = _state(source)
        size = before[1]
        for too_much, number in ((max_bytes, errno.EFBIG), (free_bytes(self.incoming) - LEAST_FREE, errno.ENOSPC)):
            if size > too_much:
                raise OSError(number, os.strerror(number))
        # Without the mark of an intake, else a half copied file would be taken for one.
        part = target.with_name(f".{target.name.partition('~')[0]}.part")
        try:
            with source.open("rb") as read, part.open("wb") as write:
                while pieces := read.read(_FORCED_EACH):
                    write.write(pieces)
                    write.flush()
                    os.fsync(write.fileno())  # little by little, so that no single wait for the disk is long
                    self._progress()
            if _state(source) != before:  # whoever wrote it was not finished
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), source)
            os.rename(part, target)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        fsync_folder(self.incoming)
        if _state(source) == before:  # else it is taken again, as another one
            os.unlink(source)


def _state(path: Path) -> tuple[int, int, int]:
    """Return what is another after the file was written or replaced."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def free_bytes(path: Path) -> int:
    """Return the bytes that an unprivileged process may still write under `path`."""
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize
