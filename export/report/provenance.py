"""How a page was made: command, seed, versions, and the hashes of what it was made from."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from export.report.page import Made

SEED = 0
"""Of the resampling; the same for every page, so that two pages of the same predictions are equal."""
_PACKAGES = ("cxr-edge", "numpy", "matplotlib", "tensorflow", "ai-edge-litert")


def made(command: str, arguments: Sequence[str], files: Iterable[Path]) -> Made:
    """Return how this page was made. Of paths only the last part is shown: a page is passed on, folders are private.

    Args:
        command: such as "cxr-export evaluate".
        arguments: as given; an argument that is a path is shortened.
        files: hashed.
    """
    shown = [Path(argument).name if "/" in argument and not argument.startswith("-") else argument for argument in arguments]
    versions = {"Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    inputs = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    return Made(" ".join([command, *shown]), SEED, versions, inputs)
