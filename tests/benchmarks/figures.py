"""Small helpers that the benchmarks share."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

Figures = dict[str, float]
"""Name of a figure -> value. Ratios have no unit; names that end in _ms, _mib or _per_s say theirs."""


def noisy_picture(rng: np.random.Generator, kind: str, *, width: int, height: int) -> bytes:
    """Return a file of noise, the worst case for a decoder; the values span what the quality gate accepts."""
    pixels = rng.integers(0, 256, (height, width), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG" if kind == "png" else "JPEG", **({} if kind == "png" else {"quality": 90}))
    return content.getvalue()


def pss_kib(pid: int) -> int:
    """Return the proportional set size of a process in KiB now; 0 if it has gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
    except OSError:
        return 0
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) if found else 0
