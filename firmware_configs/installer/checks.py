"""What has to be so before anything is written. Each refusal is one sentence that says what is missing and what to do."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from .boards import Board
from .errors import Refused
from .machine import Machine, nearest
from .package import Package
from .places import Places

# What compiled modules and the file system's blocks add to the size of the files, and what the system needs to go on working.
_UNPACKED, _SPARE_MB = 1.5, 64


def require_root(machine: Machine) -> None:
    """Raise Refused unless this is root."""
    if not machine.is_root:
        raise Refused("Only root can install: run it again with sudo.")


def require_system(package: Package, machine: Machine) -> None:
    """Raise Refused unless the package is for this machine's processor, Python and C library."""
    if package.architecture != machine.architecture:
        raise Refused(
            f"This package is for {package.architecture}, and this is {_a(machine.architecture)} machine: take the one for "
            f"{machine.architecture}."
        )
    if package.python != machine.python:
        raise Refused(
            f"This package is for Python {package.python}, and this system has {machine.python}: take the one whose name ends in "
            f"py{machine.python.replace('.', '')}."
        )
    if _numbers(package.glibc) > _numbers(machine.glibc):
        raise Refused(f"This system's C library is {machine.glibc}, and {package.glibc} is needed: use a newer system.")


def require_board(board: Board, machine: Machine) -> None:
    """Raise Refused unless the profile is for a board like this machine."""
    if board.architecture and board.architecture != machine.architecture:
        raise Refused(
            f"That profile is for {_a(board.architecture)} board, and this is {_a(machine.architecture)} machine: choose another "
            "with --profile."
        )
    if machine.memory_mb < board.memory_mb:
        raise Refused(
            f"This board has {machine.memory_mb} MB of memory, and {board.model or 'this profile'} needs {board.memory_mb}: use a "
            "board with more, or the profile of a smaller one."
        )


def require_room(package: Package, board: Board, machine: Machine, places: Places, *, first: bool) -> None:
    """Raise Refused unless there is room for the software and, the first time, for what the board is to keep."""
    software = int(package.unpacked_mb * _UNPACKED) + _SPARE_MB
    wanted = [(places.software, software)]
    if first:
        wanted.append((places.state, max(board.disk_mb, software)))
    for path, needed in wanted:
        free = machine.free_mb(path)
        if free < needed:
            raise Refused(f"{nearest(path)} has {free} MB free, and {needed} MB are needed: make room, or use a larger card.")


def require_writable(folders: Iterable[Path]) -> None:
    """Raise Refused unless each folder, or the one that it will be made in, takes a file for good: tried by writing one."""
    for folder in sorted({nearest(folder) for folder in folders}):
        try:
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".cxr-edge-") as file:
                file.write(bytes(65_536))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise Refused(disk_trouble(error, folder)) from None


def disk_trouble(error: OSError, where: Path) -> str:
    """Return a sentence for what a disk said."""
    if error.errno == errno.EROFS:
        return (
            f"The card is read-only: nothing can be written to {where}. Make it writable (mount -o remount,rw), or, if it was and "
            "has become read-only, replace it: it is worn out."
        )
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"The card is full: nothing more can be written to {where}. Make room, or use a larger card."
    return f"The card does not work: {where} cannot be written to ({error.strerror}). Replace it."


def require_enrolment_file(path: Path | None, code: Path | None) -> None:
    """Raise Refused unless the files that were named can be read. What is in them the installed software judges."""
    for what, one in (("enrolment file", path), ("file with its code", code)):
        if one is None:
            continue
        try:
            if one.read_bytes():
                continue
            reason = "it is empty"
        except OSError as error:
            reason = error.strerror or "it cannot be read"
        raise Refused(f"The {what} {one} cannot be used ({reason}): copy it here again, and name it as it is called.")


def _numbers(text: str) -> list[int]:
    return [int(part) if part.isdecimal() else 0 for part in text.split(".")]


def _a(architecture: str) -> str:
    return f"an {architecture}" if architecture[:1] in "aeioux" else f"a {architecture}"
