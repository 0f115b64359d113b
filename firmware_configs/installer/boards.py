"""Which profile fits this board, and what it asks of it."""

from __future__ import annotations

from collections.abc import Sequence
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
    models: Sequence[str] = ()
    """Names of the boards that it is for; without any, `model` is the only one."""


def read_board(path: Path) -> Board:
    """Read the [board] table of a file.

    Raises:
        Refused: if the file cannot be read, or is not TOML.
    """
    table = read_toml(path).get("board", {})
    known = {key: table[key] for key in Board.__dataclass_fields__ if key in table}
    return Board(**known)


def choose_profile(profiles: Path, asked: str, machine: Machine) -> Path:
    """Return the profile that was asked for by name or path, or the one for this machine.

    Of those that name it: one that its memory suffices for, named with the most words, that makes most of its memory. Where the
    memory suffices for none it is one of them all the same, and `require_board` refuses. `cxr-first-boot` chooses likewise.

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
    boards = [(read_board(path), path) for path in there]
    fitting = [
        (machine.memory_mb >= board.memory_mb, named, board.memory_mb, path)
        for board, path in boards
        if (named := _named(board, machine))
    ]
    if not fitting:
        what = machine.model or f"a {machine.architecture} machine"
        raise Refused(f"This is {what}, and no profile is known to be for it: choose one with --profile: {names}.")
    return max(fitting)[-1]


def _named(board: Board, machine: Machine) -> int:
    """Return how long the longest name is all of whose words are words of this machine's own name; 0 if there is none."""
    if board.architecture != machine.architecture:
        return 0
    model = machine.model
    if not model and machine.architecture == "x86_64":
        model = "PC"  # it has no device tree to say what it is
    told = _words(model)
    wanted = [_words(name) for name in board.models or (board.model,)]
    return max((len(" ".join(words)) for words in wanted if set(words) <= set(told)), default=0)


def _words(name: str) -> list[str]:
    return name.lower().replace("+", " plus").split()
