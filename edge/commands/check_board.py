"""Whether the machine is the one that the profile was written for, in plain words.

`root` is where /proc, /sys and /dev are, for tests.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edge.commands.finding import Finding
from edge.config import Board
from edge.unattended.board import read_board

_ROOT = Path("/")
_NARROW = {"aarch64": "armv7l", "armv8l": "armv7l", "x86_64": "i686"}
"""What a 32-bit program is made for, by what the 64-bit kernel under it says that it is."""


def check_board(board: Board, root: Path = _ROOT) -> Iterator[Finding]:
    """Yield what was found. Only what the device cannot work with is fatal."""
    yield _architecture(board)
    yield _python(board)
    yield _runtime(board)
    now = read_board(root)
    yield _memory(board, now.memory_total)
    if now.temperature_c is not None:
        text = f"{now.temperature_c:.0f} °C, too hot from {board.hot_c:.0f} on"
        hot = now.hot(board.hot_c)
        yield Finding("temperature", not hot, text + (": give it air, and keep it out of the sun" if hot else ""), fatal=False)
    if not now.power_told and _is_raspberry_pi(root):
        text = "this system does not say when it is too weak; a flash on a connected screen would, or `vcgencmd get_throttled`"
        yield Finding("power supply", False, text, fatal=False)
    if board.watchdog_s:
        yield _watchdog(board, root)


def architecture() -> str:
    """Return what this Python was made for: `uname -m`, but of a 32-bit system on a 64-bit kernel the 32-bit name."""
    machine = os.uname().machine
    return _NARROW.get(machine, machine) if struct.calcsize("P") == 4 else machine


def _architecture(board: Board) -> Finding:
    found = architecture()
    if found == board.architecture:
        return Finding("board", True, f"{board.model}, {found}")
    text = f"this machine is {found}, and the profile is for {board.model} ({board.architecture}). Take the profile of this board."
    return Finding("board", False, text)


def _python(board: Board) -> Finding:
    found, wanted = ".".join(map(str, sys.version_info[:2])), " or ".join(board.python)
    if found in board.python:
        return Finding("Python", True, found)
    return Finding("Python", False, f"{found}, and the profile of {board.model} is for {wanted}: not tried together", fatal=False)


def _runtime(board: Board) -> Finding:
    name, _, wanted = board.runtime.partition("==")
    try:
        found = version(name)
    except PackageNotFoundError:
        return Finding("runtime", False, f"{name} is not installed, and the profile asks for {board.runtime}", fatal=False)
    other = "" if found == wanted else f", and the profile asks for {wanted}"
    return Finding("runtime", not other, f"{name} {found}{other}", fatal=False)


def _memory(board: Board, total: int | None) -> Finding:
    if total is None:
        return Finding("memory", False, "the system does not say how much there is", fatal=False)
    found = total // 2**20
    if found >= board.memory_mb:
        return Finding("memory", True, f"{found} MiB")
    text = f"{found} MiB, and the profile needs {board.memory_mb}. Take a board with more, or the profile of a smaller one."
    return Finding("memory", False, text)


def _is_raspberry_pi(root: Path) -> bool:
    try:
        return (root / "proc/device-tree/model").read_bytes().startswith(b"Raspberry Pi")
    except OSError:
        return False


def _watchdog(board: Board, root: Path) -> Finding:
    if (root / "dev/watchdog0").exists():
        return Finding("watchdog", True, f"there is one; systemd's RuntimeWatchdogSec is to be {board.watchdog_s}", fatal=False)
    text = "/dev/watchdog0 is not there: if this board hangs as a whole, someone has to pull its plug"
    return Finding("watchdog", False, text, fatal=False)
