"""A disk that forgets: the system calls of a real program, recorded, and what a power cut at any moment would have left of them.

Nothing is durable that was not forced, and nothing ever that a failed fsync was to force. Of the writes to a file since its last
fsync each is kept, dropped or torn between two 512-byte sectors, whatever became of the others. New, changed and removed names
are durable once their folder was forced; of the others a cut keeps the first few. That is less than any journalling file system
promises.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.support.processes import find_program

SECTOR = 512
_CALLS = "openat,write,pwrite64,ftruncate,fsync,fdatasync,rename,unlink"
_UNKNOWN = "writev,pwritev,pwritev2,sendfile,copy_file_range,fallocate,truncate,renameat,renameat2,unlinkat,link,linkat,symlink"
_LINE = re.compile(r"\d+ +(\w+)\((.*)\) += (-?\d+)(?:<.*>)?(?: .*)?")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_HANDLE = re.compile(r"(\d+)<((?:\\x[0-9a-f]{2})*)")


class Call(NamedTuple):
    """One system call that changed the disk, or a line that the program said."""

    name: str
    path: str
    data: bytes = b""
    at: int = 0
    to: str = ""


def record(command: Sequence[str], folder: Path, log: Path, inject: str = "", ends_with: int = 0) -> list[Call]:
    """Run a program to its end and return what it did below `folder`, and what it said, in order.

    Args: inject: a fault as strace has them; ends_with: the exit status that the program must have.

    Raises:
        AssertionError: if the program fails, or changes files by calls that this module does not know.
    """
    strace = find_program("strace", "strace")
    options = ["-f", "--seccomp-bpf", "-qq", "-y", "-xx", "-s", "1048576", "-o", str(log), "-e", f"trace={_CALLS},{_UNKNOWN}"]
    options += ["-e", f"inject={inject}"] if inject else []
    done = subprocess.run([strace, *options, *command], capture_output=True, text=True, check=False)
    assert done.returncode == ends_with, done.stderr
    with log.open(encoding="ascii") as lines:
        return list(_calls(lines, f"{folder}/"))


def _calls(lines: Iterator[str], folder: str) -> Iterator[Call]:
    positions: dict[str, int] = {}
    for line in lines:
        found = _LINE.match(line)
        if found is None or (found[3].startswith("-") and "sync" not in found[1]):
            assert "unfinished" not in line, "this module follows one thread"
            continue
        name, arguments, result = found[1], found[2], int(found[3])
        strings = [bytes.fromhex(text.replace("\\x", "")) for text in _STRING.findall(arguments)]
        if name == "openat":
            positions[found[3]] = 0
            path = os.fsdecode(strings[0])
            if path.startswith(folder) and ("O_CREAT" in arguments or "O_TRUNC" in arguments):
                yield Call("open", path, at=int("O_TRUNC" in arguments))
            continue
        if name in {"rename", "unlink"}:
            paths = [os.fsdecode(text) for text in strings]
            if any(path.startswith(folder) for path in paths):
                yield Call(name, paths[0], to=paths[-1])
            continue
        handle = _HANDLE.match(arguments)
        number, path = (handle[1], os.fsdecode(bytes.fromhex(handle[2].replace("\\x", "")))) if handle else ("", "")
        if number == "1" and name == "write":
            yield Call("say", "", strings[0])
        if not (path + "/").startswith(folder):
            continue
        assert name in _CALLS, f"this module does not know {name}"
        if name == "write":
            yield Call("write", path, strings[0][:result], positions[number])
            positions[number] += result
        elif name == "pwrite64":
            yield Call("write", path, strings[0][:result], int(arguments.rpartition(", ")[2]))
        elif name == "ftruncate":
            yield Call("truncate", path, at=int(arguments.rpartition(", ")[2]))
        else:
            yield Call("sync" if result == 0 else "failed sync", path)


@dataclass
class _File:
    durable: bytearray = field(default_factory=bytearray)
    pending: list[Call] = field(default_factory=list)

    def after_cut(self, rng: random.Random, kept: float) -> bytes:
        content = bytearray(self.durable)
        for call in self.pending:
            if rng.random() < kept:
                _change(content, call)
            elif call.name == "write" and rng.random() < 0.3:
                for part in _sectors(call):
                    if rng.random() < 0.5:
                        _change(content, part)
        return bytes(content)


class Disk:
    """What is on the disk, and what only seems to be, after some calls."""

    def __init__(self) -> None:
        self._names: dict[str, _File] = {}
        self._durable: dict[str, _File] = {}
        self._pending: list[tuple[dict[str, _File | None], set[str]]] = []

    def apply(self, call: Call) -> None:
        """Let one call happen."""
        if call.name == "open":
            if call.path not in self._names:
                self._rename({call.path: _File()})
            elif call.at:
                self._names[call.path].pending.append(Call("truncate", call.path))
        elif call.name == "rename":
            moved = self._names.get(call.path, _File())  # from outside: its content is not known, and not asked for
            self._rename({call.path: None, call.to: moved})
        elif call.name == "unlink":
            self._rename({call.path: None})
        elif call.name in {"write", "truncate"} and call.path in self._names:
            self._names[call.path].pending.append(call)
        elif call.name == "sync":
            self._force(call.path)
        elif call.name == "failed sync" and call.path in self._names:
            # The system takes those pages for written from now on: programs see them, a later fsync succeeds, the disk has nothing.
            self._names[call.path].pending.clear()

    def cut(self, rng: random.Random, target: Path) -> None:
        """Write under `target` what the disk holds when the power comes back. Nothing here changes."""
        names = dict(self._durable)
        for change, _ in self._pending[: rng.randint(0, len(self._pending))]:
            _update(names, change)
        kept = rng.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        for path, file in names.items():
            place = target / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.after_cut(rng, kept))

    def _rename(self, change: dict[str, _File | None]) -> None:
        _update(self._names, change)
        self._pending.append((change, {os.path.dirname(path) for path in change}))

    def _force(self, path: str) -> None:
        file = self._names.get(path)
        if file is not None:
            for call in file.pending:
                _change(file.durable, call)
            file.pending.clear()
            return
        left = []
        for change, folders in self._pending:
            if path in folders:
                _update(self._durable, change)
            else:
                left.append((change, folders))
        self._pending = left


def _update(names: dict[str, _File], change: dict[str, _File | None]) -> None:
    for path, file in change.items():
        if file is None:
            names.pop(path, None)
        else:
            names[path] = file


def _change(content: bytearray, call: Call) -> None:
    if call.name == "truncate":
        del content[call.at :]
        content.extend(bytes(call.at - len(content)))
    else:
        content.extend(bytes(max(call.at - len(content), 0)))
        content[call.at : call.at + len(call.data)] = call.data


def _sectors(call: Call) -> Iterator[Call]:
    start = call.at
    while start < call.at + len(call.data):
        end = min((start // SECTOR + 1) * SECTOR, call.at + len(call.data))
        yield call._replace(data=call.data[start - call.at : end - call.at], at=start)
        start = end
