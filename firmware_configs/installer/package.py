"""The unpacked package that this installer came in."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from .errors import Refused

PARTS = ("wheels", "installer", "install.sh", "systemd", "journald", "first-boot", "profiles", "package.json", "requirements.txt")
"""What belongs to a package; an enrolment file that someone has put beside it does not."""


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
        Refused: if a file is missing, damaged, or not in the list; what else lies in the folder is not looked at.
    """
    try:
        sums = (folder / "SHA256SUMS").read_bytes()
        listed = {name: wanted for wanted, _, name in (line.partition("  ") for line in sums.decode().splitlines())}
        for name in sorted({*listed, *_there(folder)}):
            if _digest(folder / name) != listed.get(name):
                raise Refused(f"This package is damaged ({name} is not what it was): copy it anew and unpack it again.")
        said = json.loads((folder / "package.json").read_bytes())
        return Package(folder=folder, sums=hashlib.sha256(sums).hexdigest(), **said)
    except (OSError, ValueError, TypeError) as error:
        name = Path(getattr(error, "filename", None) or "its description").name
        raise Refused(f"This package is damaged ({name} cannot be read): copy it anew and unpack it again.") from None


def _there(folder: Path) -> list[str]:
    found = [path for part in PARTS for path in (folder / part, *(folder / part).rglob("*")) if path.is_file()]
    return [path.relative_to(folder).as_posix() for path in found]


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            found.update(piece)
    return found.hexdigest()
