"""The wheels of a lock, each the very file that its hash names; kept in build/wheelhouse/fetched."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from firmware_configs.wheelhouse.resolve import pip
from firmware_configs.wheelhouse.targets import PIP_LOCK, ROOT, Target

_KEPT = ROOT / "build" / "wheelhouse" / "fetched"
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def fetch(target: Target, lock: Path) -> list[Path]:
    """Return the files of a lock, in its order.

    Raises:
        NotCollected: if one cannot be had, or is not what its hash says.
    """
    folder = _KEPT / target.name
    folder.mkdir(parents=True, exist_ok=True)
    wanted = _HASH.findall(lock.read_text("utf-8"))
    if not set(wanted) <= set(_by_hash(folder)):
        options = ["download", "--quiet", "--no-deps", "--require-hashes", f"--dest={folder}", f"--requirement={lock}"]
        pip(target, [*options, *target.pip_options()])
    here = _by_hash(folder)
    return [here[one] for one in wanted]


def fetched_pip() -> Path:
    """Return pip's own wheel, which is the same for all targets."""
    return fetch(Target("x86_64", "310"), PIP_LOCK)[0]


def sha256(path: Path) -> str:
    """Return the digest of a file in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _by_hash(folder: Path) -> dict[str, Path]:
    return {sha256(path): path for path in folder.glob("*.whl")}
