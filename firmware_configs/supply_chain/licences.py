"""Under which licence each package is, and which of them ask for more than to be named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tomllib
from packaging.version import Version

from firmware_configs.supply_chain.pinned import CENTRE_LOCK, device_locks, read_lock
from firmware_configs.wheelhouse.targets import PIP_LOCK, ROOT

PAGE = ROOT / "docs" / "reference" / "licences.md"
_TABLE = Path(__file__).with_name("licences.toml")
_PERMISSIVE = frozenset(
    {"Apache-2.0", "MIT", "MIT-0", "MIT-CMU", "BSD-2-Clause", "BSD-3-Clause", "0BSD", "Zlib", "CC0-1.0", "PSF-2.0", "any-OSI"}
)
_WHAT_THEY_ASK = {
    "psycopg": "unchanged, loaded only where the database is PostgreSQL; who passes it on says where its source is",
    "psycopg-binary": "as psycopg; the wheel holds libpq (PostgreSQL licence), OpenSSL (Apache-2.0) and others",
    "tqdm": "brought by ai-edge-litert; unchanged, so naming it is enough (MPL-2.0 asks for the source of changed files)",
}


def licences() -> dict[str, str]:
    """Return the SPDX expression of each package by its normalised name."""
    return dict(tomllib.loads(_TABLE.read_text("utf-8")))


def is_permissive(expression: str) -> bool:
    """Return whether an SPDX expression without brackets can be met by naming the authors: each part of AND, one part of OR."""
    return all(any(option.strip() in _PERMISSIVE for option in part.split(" OR ")) for part in expression.split(" AND "))


def page() -> str:
    """Return docs/reference/licences.md.

    Raises:
        KeyError: if a package of a lock is not in licences.toml.
    """
    device = _versions(*device_locks(), PIP_LOCK)
    centre = _versions(CENTRE_LOCK)
    known = licences()
    lines = [
        "# Licences",
        "",
        "Written by `make supply-chain` from the locks and `firmware_configs/supply_chain/licences.toml`.",
        "",
        "The project's own code is under Apache-2.0. The shipped network has a licence of its own, for research use:",
        "`edge/models/chest/LICENSE`. Beside these packages a board has its system's own (Debian, Ubuntu), and of these 32-bit ARM",
        "takes numpy and Pillow. Wheels of numpy hold OpenBLAS (BSD-3-Clause) and libgfortran (GPL-3.0, GCC runtime exception).",
        "",
        "| package | version | licence | device | centre | |",
        "|---|---|---|---|---|---|",
    ]
    for name in sorted(device | centre):
        versions = ", ".join(sorted({*device.get(name, ()), *centre.get(name, ())}, key=Version))
        asks = "" if is_permissive(known[name]) else f"**not permissive**: {_WHAT_THEY_ASK[name]}"
        lines.append(f"| {name} | {versions} | {known[name]} | {_yes(name, device)} | {_yes(name, centre)} | {asks} |")
    return "\n".join(lines) + "\n"


def _versions(*locks: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for lock in locks:
        for pinned in read_lock(lock):
            found.setdefault(pinned.name, set()).add(pinned.version)
    return found


def _yes(name: str, where: Mapping[str, object]) -> str:
    return "yes" if name in where else ""
