"""Which profile fits this board, and what it asks of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .errors import Refused
from .machine import Machine
from .toml import read_toml


@dataclass(frozen=True)
class Board:
    """The [board] table of a profile or of device.toml. What it leaves out asks nothing."""

    model: str = ""
    architecture: str = ""
    memory_mb: int = 0
    disk_mb: int = 0


def read_board(path: Path) -> Board:
    """Read the [board] table of a file.

    Raises:
        Refused: if the file cannot be read, or is not TOML.
    """
    table = read_toml(path).get("board", {})
    known = {key: table[key] for key in Board.__dataclass_fields__ if key in table}
    return Board(**known)


def choose_profile(profiles: Path, asked: str, machine: Machine) -> Path:
    """Return the profile that was asked for by name or path, or the one whose model is this machine's.

    Raises:
        Refused: naming those that there are.
    """
    there = sorted(profiles.glob("*.toml"))
    names = ", ".join(path.stem for path in there)
    if asked:
        for path in (profiles / f"{asked}.toml", Path(asked)):
            if path.is_file():
                return path
        raise Refused(f"There is no profile {asked}: name a file, or one of {names}.")
    fitting = [(len(board.model), path) for path in there if _is_of(board := read_board(path), machine)]
    if not fitting:
        what = machine.model or f"a {machine.architecture} machine"
        raise Refused(f"This is {what}, and no profile is known to be for it: choose one with --profile: {names}.")
    return max(fitting)[1]


def _is_of(board: Board, machine: Machine) -> bool:
    if board.architecture != machine.architecture:
        return False
    if not machine.model:  # a PC has no device tree
        return board.architecture == "x86_64"
    told, wanted = machine.model.lower().split(), board.model.lower().replace("+", " plus").split()
    return bool(wanted) and all(word in told for word in wanted)
