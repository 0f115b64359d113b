"""How long networks take, side by side, and what memory they need."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from export.compress.formats import Runner

_WARM_UP = 3
_PEAK = """
import sys
from pathlib import Path
from edge.network.classify import new_interpreter
import ai_edge_litert.interpreter
def kib(name):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])
graph = Path(sys.argv[1]).read_bytes()
Path("/proc/self/clear_refs").write_text("5")  # from here on the peak is counted anew
before = kib("VmRSS:")
network = new_interpreter(graph, 1)
network.allocate_tensors()
network.invoke()
print(kib("VmHWM:") - before)
"""


def interleaved(
    runners: Mapping[str, Runner], pictures: Mapping[str, npt.NDArray[np.uint8]], *, rounds: int = 60, seed: int = 0
) -> dict[str, float]:
    """Return the median milliseconds of one picture, for each runner.

    In every round each runs once, in an order drawn anew, so that a machine that slows down slows all of them alike.

    Args:
        runners: what is timed; the network alone, without setting its input.
        pictures: one for each, of shape (side, side, channels).
        rounds: how many times each runs.
        seed: of the orders.
    """
    for name, runner in runners.items():
        runner.give(pictures[name])
        for _ in range(_WARM_UP):
            runner.invoke()
    rng = np.random.default_rng(seed)
    names = list(runners)
    spent: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for place in rng.permutation(len(names)):
            name = names[int(place)]
            began = time.perf_counter()
            runners[name].invoke()
            spent[name].append(time.perf_counter() - began)
    return {name: float(np.median(values)) * 1e3 for name, values in spent.items()}


def peak_memory(graph: bytes) -> int:
    """Return by how many bytes the peak memory of a process grows when it loads a TFLite file and runs it once on one thread."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.tflite"
        file.write_bytes(graph)
        command = [sys.executable, "-c", _PEAK, str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    return int(done.stdout) * 1024
