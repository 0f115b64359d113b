"""What each process of the device asks the kernel for in a working day under its unit, and what it is refused: docs/adr/0023.

    python -m tests.benchmarks.confinement [--json FILE]

Runs the whole line under the restrictions of the units with strace around each process, so it needs root and takes some minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.support.authority import Authority
from tests.support.confined_life import PROCESSES, clinic, work
from tests.support.mosquitto import fleet_mosquitto
from tests.support.processes import find_program

_CALL = re.compile(r"^\d+ +(?:<\.\.\. )?(\w+)(?:\(| resumed)")
_REFUSED = re.compile(r"= -1 (EPERM|EAFNOSUPPORT|ENOSYS)\b")
_MEMORY = ("mmap", "mprotect", "pkey_mprotect")


@dataclass
class Asked:
    """calls: different system calls, children included. refused: by name, how often. executable: mappings by their protection."""

    calls: list[str]
    total: int
    refused: dict[str, int]
    executable: dict[str, int]


def main() -> None:
    """Print one table."""
    reader = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    reader.add_argument("--json", type=Path, metavar="FILE", help="also write everything here")
    given = reader.parse_args()
    strace = find_program("strace", "strace")
    with tempfile.TemporaryDirectory(prefix="cxr-confinement-") as folder, contextlib.ExitStack() as stack:
        home = Path(folder)
        for name in ("broker", "board"):
            (home / name).mkdir()
        authority = Authority(home / "authority")
        fleet = stack.enter_context(fleet_mosquitto(home / "broker", authority))
        place = stack.enter_context(clinic(home / "board", fleet, authority))
        with place.serve(lambda name: (strace, "-f", "-s", "0", "-o", str(home / f"{name}.trace"))) as pids:
            work(place, pids)
        found = {name: read(home / f"{name}.trace") for name in PROCESSES}
    print(f"{'process':8} {'different':>9} {'calls':>7}  refused; memory that is run")
    for name, asked in found.items():
        print(f"{name:8} {len(asked.calls):9} {asked.total:7}  {asked.refused}; {asked.executable}")
    print("all:", *sorted({call for asked in found.values() for call in asked.calls}))
    if given.json:
        given.json.write_text(json.dumps({name: asdict(asked) for name, asked in found.items()}, indent=1))


def read(trace: Path) -> Asked:
    """Read what strace has written, from where the last restriction is in place."""
    lines = trace.read_text(errors="replace").splitlines()
    restricted = max(at for at, line in enumerate(lines) if "seccomp(SECCOMP_SET_MODE_FILTER" in line)
    calls: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    executable: Counter[str] = Counter()
    for line in lines[restricted + 1 :]:
        found = _CALL.match(line)
        if not found:
            continue
        calls[found[1]] += 1
        if _REFUSED.search(line):
            refused[found[1]] += 1
        if found[1] in _MEMORY and "PROT_EXEC" in line:
            executable[f"{found[1]} {re.findall(r'PROT_[A-Z_|]+', line)[0]}"] += 1
    return Asked(sorted(calls), sum(calls.values()), dict(refused), dict(executable))


if __name__ == "__main__":
    main()
