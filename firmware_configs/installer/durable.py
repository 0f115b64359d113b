"""Files, links and folders that survive a power cut: each is there whole or not at all, and on return it is on the disk."""

from __future__ import annotations

import contextlib
import os
import shutil
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

    One sync for all is quick where thousands of files were written; it reports no error, and the fsync of each after it does.

    Raises:
        OSError: if something could not be written.
    """
    os.sync()
    for path, _, files in os.walk(folder):
        for name in files:
            full = os.path.join(path, name)
            if not os.path.islink(full):
                _fsync(full, os.O_RDONLY)
        fsync_folder(Path(path))


def parts(folder: Path) -> list[Path]:
    """Return what writes that were cut off have left in a folder."""
    return sorted(folder.glob(".*.part"))


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it; one that is not there is fine."""
    if folder.is_symlink() or not folder.exists():
        return
    shutil.rmtree(folder)
    fsync_folder(folder.parent)


def fsync_folder(path: Path) -> None:
    """Force the names in a folder to the disk."""
    _fsync(str(path), os.O_RDONLY | os.O_DIRECTORY)


def _fsync(path: str, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
