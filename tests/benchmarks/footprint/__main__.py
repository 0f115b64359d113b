"""`make footprint`: measure, write build/footprint.json and the tables of docs/reference/footprint.md."""

from __future__ import annotations

import dataclasses
import json
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from edge.config import load_config
from firmware_configs.wheelhouse.targets import ROOT, Target
from tests.benchmarks.footprint import installed, memory, startup, table
from tests.benchmarks.footprint.films import write_films

_PROFILES = ROOT / "firmware_configs" / "profiles"
_OUTPUT = ROOT / "build" / "footprint.json"


def main() -> None:
    """Measure every profile, or those named as arguments; the figures of the others are then kept from the last run."""
    began = time.monotonic()
    paths = [_PROFILES / f"{name}.toml" for name in sys.argv[1:]] or sorted(_PROFILES.glob("*.toml"))
    figures: dict[str, Any] = {"machine": f"{platform.machine()}, Python {platform.python_version()}", "profiles": {}}
    if sys.argv[1:] and _OUTPUT.exists():
        figures["profiles"] = json.loads(_OUTPUT.read_text("utf-8"))["profiles"]
    with tempfile.TemporaryDirectory(prefix="cxr-footprint-") as folder:
        home = Path(folder)
        films: dict[int, dict[str, Path]] = {}
        sizes: dict[Target, float | None] = {}
        for path in paths:
            device = load_config(path)
            assert device.board is not None
            target = Target(device.board.architecture, device.board.python[0].replace(".", ""))
            if target not in sizes:
                sizes[target] = installed.measure(target, home)
            megapixels = device.decode.max_megapixels
            if megapixels not in films:
                films[megapixels] = write_films(home / f"{megapixels}", megapixels)
            seen = memory.measure(path, home / path.stem, films[megapixels])
            figures["profiles"][path.stem] = {"installed": sizes[target], "megapixels": megapixels} | dataclasses.asdict(seen)
            sys.stdout.write(f"{time.monotonic() - began:5.0f} s  {path.stem}: {seen}\n")
            sys.stdout.flush()
        figures["start_s"] = startup.measure(paths[0], home / "startup")
    figures["profiles"] = dict(sorted(figures["profiles"].items()))
    _OUTPUT.parent.mkdir(exist_ok=True)
    _OUTPUT.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    if set(figures["profiles"]) == {path.stem for path in _PROFILES.glob("*.toml")}:
        table.write(figures)
    sys.stdout.write(table.tables(figures))


if __name__ == "__main__":
    main()
