"""What the software takes on a board's disk: the files of its lock, unpacked and compiled to bytecode, and its own packages."""

from __future__ import annotations

import compileall
import zipfile
from pathlib import Path

from firmware_configs.wheelhouse.resolve import pip
from firmware_configs.wheelhouse.targets import ROOT, Target

_OWN = ("edge", "export", "broker")
_FETCHED = ROOT / "build" / "wheelhouse" / "fetched"


def measure(target: Target, scratch: Path) -> float | None:
    """Return MiB; None for a target without a lock. Bytecode is that of this Python, which differs little from another's.

    Raises:
        NotCollected: if pip cannot fetch a file of the lock.
    """
    if not target.lock.exists():
        return None
    fetched, unpacked = _FETCHED / target.name, scratch / target.name
    options = ["download", "--quiet", "--no-deps", "--require-hashes", f"--dest={fetched}", f"--requirement={target.lock}"]
    pip(target, [*options, *target.pip_options()])
    names = {line.partition("==")[0] for line in target.lock.read_text("utf-8").splitlines() if "==" in line}
    for wheel in fetched.glob("*.whl"):
        if wheel.name.partition("-")[0].lower().replace("_", "-").replace(".", "-") in names:
            with zipfile.ZipFile(wheel) as content:
                content.extractall(unpacked)
    for name in _OWN:
        for path in (ROOT / name).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                copy = unpacked / path.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())
    compileall.compile_dir(unpacked, quiet=2, workers=2)
    return sum(path.stat().st_size for path in unpacked.rglob("*") if path.is_file()) / 2**20
