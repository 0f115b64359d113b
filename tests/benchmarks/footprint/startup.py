"""Seconds from the start of each process until it tells its manager that it serves, the others not running."""

from __future__ import annotations

import time
from pathlib import Path

from tests.benchmarks.footprint.memory import make
from tests.support.manager import managed, manager

_REPEATS = 5
_PROCESSES = ("infer", "watch", "relay", "dicom", "page")
"""`infer` makes the outbox, which the others wait for."""


def measure(profile: Path, home: Path) -> dict[str, float]:
    """Return the best of some by process: in the others this machine did something else too.

    Nothing answers where the broker is to be, which none of them waits for.
    """
    device = make(profile, home, "mqtt://127.0.0.1:1")
    return {name: min(_once(name, device.config, home) for _ in range(_REPEATS)) for name in _PROCESSES}


def _once(name: str, config: Path, home: Path) -> float:
    with manager() as listens:
        began = time.monotonic()
        with managed(name, config, home / "start.log", listens):
            listens.wait_for("READY=1", timeout_s=60)
            return next(at for at, text in listens.said if "READY=1" in text) - began
