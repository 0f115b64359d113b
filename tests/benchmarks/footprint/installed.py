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
    """Return MiB, without what is the system's own; None for a target of which something was to be compiled and is not there.

    Bytecode is that of this Python, which differs little from another's.

    Raises:
        NotCollected: if pip cannot fetch a file of the lock.
    """
    lines = {line.partition("==")[0]: line for line in target.lock.read_text("utf-8").splitlines() if "==" in line}
    built = {_name(wheel): wheel for wheel in target.built.glob("*.whl")}
    if not target.compiled <= built.keys():
        return None
    fetched, unpacked, published = _FETCHED / target.name, scratch / target.name, scratch / f"{target.name}.txt"
    published.write_text("".join(f"{line}\n" for name, line in lines.items() if name not in target.compiled), "utf-8")
    options = ["download", "--quiet", "--no-deps", "--require-hashes", f"--dest={fetched}", f"--requirement={published}"]
    pip(target, [*options, *target.pip_options()])
    for wheel in (*fetched.glob("*.whl"), *(built[name] for name in target.compiled)):
        if _name(wheel) in lines:
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


def _name(wheel: Path) -> str:
    return wheel.name.partition("-")[0].lower().replace("_", "-").replace(".", "-")
