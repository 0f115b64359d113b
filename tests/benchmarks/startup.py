"""From the first line of a fresh process to its first result, against `import numpy` in a fresh process."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.benchmarks.figures import Figures, noisy_picture

REPEATS = 15

_FIRST_RESULT = """
import time
began = time.perf_counter()
import sys
sys.argv = ["cxr-edge", "classify", "--json", sys.argv[1]]
from edge.cli import main
try:
    main()
except SystemExit:
    pass
sys.stderr.write("TOOK %f" % (time.perf_counter() - began))
"""
_NUMPY = """
import time
began = time.perf_counter()
import numpy
import sys
sys.stderr.write("TOOK %f" % (time.perf_counter() - began))
"""


def measure(home: Path) -> Figures:
    """Return startup_ratio: `cxr-edge classify` of one 512-pixel JPEG / `import numpy`, in turn, medians of the pairs."""
    picture = home / "one.jpg"
    picture.write_bytes(noisy_picture(np.random.default_rng(1), "jpeg", width=512, height=512))
    pairs = [(_took(_FIRST_RESULT, str(picture)), _took(_NUMPY)) for _ in range(REPEATS + 2)][2:]
    return {
        "startup_ratio": statistics.median(first / numpy for first, numpy in pairs),
        "first_result_ms": statistics.median(first for first, _ in pairs) * 1e3,
        "import_numpy_ms": statistics.median(numpy for _, numpy in pairs) * 1e3,
    }


def _took(script: str, *arguments: str) -> float:
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    return float(done.stderr.rpartition("TOOK ")[2])
