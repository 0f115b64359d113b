"""What the demonstration puts into the watched folder: a person's pictures, or drawn ones."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from export.phantom import phantom

AHEAD = 40
"""Pictures in the watched folder at one time, so that a large folder is not copied twice over at once."""


def pictures_of(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield (name in the inbox, file) for every file under a folder; the number keeps equal names apart."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for number, path in enumerate(files, 1):
        plain = re.sub(r"[^A-Za-z0-9._-]", "_", path.name)[-100:]
        yield f"{number:05d}-{plain}", path


def put(source: Path, inbox: Path, name: str) -> None:
    """Copy a file into the inbox under a name that is complete from the first moment."""
    part = inbox / f".{name}.part"
    shutil.copyfile(source, part)
    os.rename(part, inbox / name)


def draw(seed: int, inbox: Path) -> str:
    """Draw one phantom into the inbox; return its name."""
    name = f"drawn-{seed:04d}.png"
    part = inbox / f".{name}.part"
    Image.fromarray(phantom(seed)).save(part, format="PNG")
    os.rename(part, inbox / name)
    return name
