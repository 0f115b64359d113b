"""Files, links and folders that survive a power cut: each is there whole or not at all, and on return it is on the disk."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path


def write_durably(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file by one rename."""
    part = path.with_name(f".{path.name}.part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.rename(part, path)
    fsync_folder(path.parent)


def link_durably(path: Path, target: str) -> None:
    """Make `path` a symbolic link to `target`, replacing what it was by one rename."""
    part = path.with_name(f".{path.name}.part")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(part)
    os.symlink(target, part)
    os.rename(part, path)
    fsync_folder(path.parent)


def unlink_durably(path: Path) -> None:
    """Remove a file or a link if it is there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    fsync_folder(path.parent)


def make_folder(path: Path, mode: int = 0o755) -> None:
    """Make a folder, and those above it."""
    if path.is_dir():
        return
    make_folder(path.parent)
    os.mkdir(path, mode)
    fsync_folder(path.parent)


def force_tree(folder: Path) -> None:
    """Force a whole tree to the disk, and say if the disk refused a part of it.

    Writing is begun for all files before the first is waited for, which is several times as quick as one after the other. Not
    `sync`: it waits for whatever other programs write as well, and reports no error.

    Raises:
        OSError: if something could not be written.
    """
    files = [os.path.join(path, name) for path, _, names in os.walk(folder) for name in names]
    files = [path for path in files if not os.path.islink(path)]
    for path in files:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)
    for path in files:
        _fsync(path, os.O_RDONLY)
    for path, _, _ in os.walk(folder):
        fsync_folder(Path(path))


def parts(folder: Path) -> list[Path]:
    """Return what writes that were cut off have left in a folder."""
    return sorted(folder.glob(".*.part"))


def remove_tree(folder: Path) -> bool:
    """Remove a folder with all that is in it; one that is not there is fine. Links are removed, not followed.

    Returns:
        False if folders on which something is mounted are left, emptied; and those that they are in.
    """
    if folder.is_symlink() or not folder.exists():
        return True
    left = False
    for _, folders, files, handle in os.fwalk(folder, topdown=False, onerror=_raise):
        for name in files:
            os.unlink(name, dir_fd=handle)
        for name in folders:
            if stat.S_ISLNK(os.stat(name, dir_fd=handle, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=handle)
            else:
                left |= not _remove_folder(name, handle, also_full=left)
        os.fsync(handle)
    left |= not _remove_folder(str(folder), None, also_full=left)
    fsync_folder(folder.parent)
    return not left


def holds_files(folder: Path) -> bool:
    """Whether a file is in a folder, or below it; False if it is not there."""
    return any(files for _, _, files in os.walk(folder))


def _remove_folder(path: str, at: int | None, *, also_full: bool) -> bool:
    """Remove a folder and return whether it is gone: one on which something is mounted stays, as may one that is not empty."""
    try:
        os.rmdir(path, dir_fd=at)
    except OSError as error:
        if error.errno == errno.EBUSY or (error.errno == errno.ENOTEMPTY and also_full):
            return False
        raise
    return True


def _raise(error: OSError) -> None:
    raise error


def fsync_folder(path: Path) -> None:
    """Force the names in a folder to the disk."""
    _fsync(str(path), os.O_RDONLY | os.O_DIRECTORY)


def _fsync(path: str, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
