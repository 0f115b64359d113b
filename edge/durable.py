"""Small files and names that survive a power cut."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def write_durably(path: Path, content: bytes, owner: tuple[int, int] | None = None, mode: int = 0o600) -> None:
    """Write a file whole or not at all; on return it and its name are on the disk.

    What a write that was cut off leaves has the suffix `.part`; a link that lies there is removed, not followed.

    Args: owner: user and group that root gives it to, before it gets its name. mode: else only its owner may read it.
    """
    part = path.with_suffix(".part")
    with os.fdopen(_new(part), "wb") as file:
        if owner is not None and os.geteuid() == 0:
            os.fchown(file.fileno(), *owner)
        if mode != 0o600:
            os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.rename(part, path)
    fsync_folder(path.parent)


def put_right(path: Path, owner: tuple[int, int], mode: int) -> None:
    """Give a file to user and group, with a mode, where root does this and something else has it; a link is not followed.

    Raises:
        OSError: if it is no file or cannot be given.
    """
    if os.geteuid() != 0 or path.is_symlink():
        return
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        status = os.fstat(handle)
        if (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) != (*owner, mode):
            os.fchown(handle, *owner)
            os.fchmod(handle, mode)
            os.fsync(handle)
    finally:
        os.close(handle)


def _new(path: Path) -> int:
    """Return a handle of an empty file that this process has made itself."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        return os.open(path, flags, 0o600)
    except FileExistsError:
        os.unlink(path)
        return os.open(path, flags, 0o600)


def fsync_folder(path: Path) -> None:
    """Force the names in a folder to the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
