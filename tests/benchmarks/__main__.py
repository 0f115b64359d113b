"""Run every benchmark, print a table, write build/bench.json."""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks import delivery, device, ingest, links, restarts, startup
from tests.benchmarks.figures import Figures

AIMS = {
    "device_time_ratio_png": ("<=", 1.10),
    "device_time_ratio_jpeg": ("<=", 1.20),
    "overhead_ratio_small": ("<=", 1.5),
    "startup_ratio": ("<=", 1.5),
    "decode_rss_ratio": ("<=", 2.5),
    "other_rss_ratio": ("<=", 1.4),
    "outbox_insert_ratio": ("", 0.0),
    "drain_ratio": (">=", 0.8),
    "ingest_sqlite_ratio": (">=", 0.75),
    "half_open_noticed_s": ("<=", 30.0),
    "half_open_to_https_s": ("<=", 60.0),
    "serving_again_s": ("<=", 5.0),
}
MODULES = {"startup": startup, "device": device, "delivery": delivery, "ingest": ingest, "links": links, "restarts": restarts}


def main() -> None:
    """Measure everything; name benchmarks (device, startup, delivery, ingest, links, restarts) as arguments to run only those."""
    chosen = sys.argv[1:] or list(MODULES)
    figures: Figures = {}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cxr-bench-") as folder:
        for name in chosen:
            home = Path(folder) / name
            home.mkdir()
            figures |= MODULES[name].measure(home)
    target = Path(__file__).resolve().parents[2] / "build" / "bench.json"
    figures = {name: round(value, 4) for name, value in figures.items()}
    write(target, figures, keep=bool(sys.argv[1:]))
    machine = f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}"
    print(f"\n{machine}, {time.monotonic() - began:.0f} s\n")
    for name, value in figures.items():
        sign, aim = AIMS.get(name, ("", 0.0))
        print(f"  {name:<28} {value:>10.3f}" + (f"   aim {sign} {aim}" if sign else ""))
    print(f"\nWritten to {target.name} in {target.parent.name}/.")


def write(target: Path, figures: Figures, *, keep: bool) -> None:
    """Write figures to a file; keep: leave what is there of others, as after a run of some benchmarks only."""
    target.parent.mkdir(exist_ok=True)
    others: Figures = json.loads(target.read_text("utf-8")) if keep and target.exists() else {}
    target.write_text(json.dumps(others | figures, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
