"""The machine that this runs on, as far as an installation asks."""

from __future__ import annotations

import os
import platform
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """Facts. `architecture` is that of its programs: a 32-bit system on a 64-bit kernel is armv7l. Sizes are in MiB."""

    is_root: bool
    architecture: str
    python: str
    glibc: str
    memory_mb: int
    model: str
    free_mb: Callable[[Path], int]


def this_machine() -> Machine:
    """Return the facts of this machine."""
    return Machine(
        is_root=os.geteuid() == 0,
        architecture=_architecture(platform.machine(), struct.calcsize("P")),
        python=f"{sys.version_info[0]}.{sys.version_info[1]}",
        glibc=platform.libc_ver()[1] or "0",
        memory_mb=_memory_mb(),
        model=_model(),
        free_mb=_free_mb,
    )


def nearest(path: Path) -> Path:
    """Return the path itself, or the closest one above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _architecture(kernel: str, pointer_bytes: int) -> str:
    if pointer_bytes == 4 and kernel in {"aarch64", "armv8l", "armv7l"}:
        return "armv7l"
    return kernel


def _memory_mb() -> int:
    with open("/proc/meminfo", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) // 1024
    return 0


def _model() -> str:
    """What the board says of itself; a PC says nothing here."""
    try:
        return Path("/proc/device-tree/model").read_text("utf-8", "replace").rstrip("\0\n")
    except OSError:
        return ""


def _free_mb(path: Path) -> int:
    status = os.statvfs(nearest(path))
    return status.f_bavail * status.f_frsize // 2**20
