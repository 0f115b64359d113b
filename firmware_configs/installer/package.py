"""The unpacked package that this installer came in."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from .errors import Refused


@dataclass(frozen=True)
class Package:
    """What it is for, from package.json. `sums` is the SHA-256 of SHA256SUMS, and so of everything in it."""

    folder: Path
    version: str
    architecture: str
    python: str
    system_packages: bool
    glibc: str
    unpacked_mb: int
    sums: str

    @property
    def name(self) -> str:
        """The name of its folder under /opt/cxr-edge/versions."""
        return f"{self.version}-{self.sums[:12]}"


def open_package(folder: Path) -> Package:
    """Read a package and compare every file with its sum.

    Raises:
        Refused: if a file is missing, damaged, or one too many.
    """
    try:
        sums = (folder / "SHA256SUMS").read_bytes()
        for line in sums.decode().splitlines():
            wanted, _, name = line.partition("  ")
            if _digest(folder / name) != wanted:
                raise Refused(f"This package is damaged ({name} is not what it was): copy it anew and unpack it again.")
        said = json.loads((folder / "package.json").read_bytes())
    except (OSError, ValueError) as error:
        name = Path(getattr(error, "filename", None) or "SHA256SUMS").name
        raise Refused(f"This package is damaged ({name} cannot be read): copy it anew and unpack it again.") from None
    return Package(folder=folder, sums=hashlib.sha256(sums).hexdigest(), **said)


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            found.update(piece)
    return found.hexdigest()
