"""The files of a lock, each the very one that its hash names; kept in build/wheelhouse/fetched."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from firmware_configs.wheelhouse.resolve import NotCollected, pip
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
        sources = [f"--no-binary={','.join(sorted(target.compiled))}"] if target.compiled else []
        pip(target, [*options, *target.pip_options(), *sources])
    here = _by_hash(folder)
    return [here[one] for one in wanted]


def sources(target: Target) -> list[Path]:
    """Return the source archives that a lock names, for what has to be compiled. Raises as `fetch`."""
    return [path for path in fetch(target, target.lock) if path.suffix != ".whl"]


def wheels(target: Target) -> list[Path]:
    """Return the wheels for a lock: those that it names, and those that were compiled from the sources that it names.

    Raises:
        NotCollected: if one cannot be had, or was not compiled yet.
    """
    return [path if path.suffix == ".whl" else _compiled(target, path) for path in fetch(target, target.lock)]


def _compiled(target: Target, source: Path) -> Path:
    found = sorted(target.built.glob(f"{source.name.removesuffix('.tar.gz')}-*.whl"))
    if not found:
        raise NotCollected(f"{source.name} has to be compiled for {target.architecture} first: `make armhf`, as root, does that")
    return found[-1]


def fetched_pip() -> Path:
    """Return pip's own wheel, which is the same for all targets."""
    return fetch(Target("x86_64", "310"), PIP_LOCK)[0]


def sha256(path: Path) -> str:
    """Return the digest of a file in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _by_hash(folder: Path) -> dict[str, Path]:
    return {sha256(path): path for path in folder.iterdir()}
