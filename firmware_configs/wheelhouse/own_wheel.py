"""The device's own wheel: `edge/` alone, with the network; training and the centre do not travel to a board."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from firmware_configs.wheelhouse.resolve import NotCollected
from firmware_configs.wheelhouse.targets import ROOT

_NO_COPIES = shutil.ignore_patterns("__pycache__", "*.pyc", "*.onnx")


def build_own_wheel(into: Path, epoch: int, version: str = "") -> Path:
    """Build the wheel from what is in the working tree and return its path.

    The same tree gives the same bytes: names are sorted, times are `epoch` (seconds since 1970), modes are set.

    Args: version: instead of the one in edge/__init__.py; for tests of upgrades.

    Raises:
        NotCollected: if setuptools fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch)
        shutil.copytree(ROOT / "edge", source / "edge", ignore=_NO_COPIES)
        for name in ("pyproject.toml", "LICENSE", "README.md"):
            shutil.copyfile(ROOT / name, source / name)
        _write_setup(source / "setup.cfg")
        if version:
            (source / "edge/__init__.py").write_text(f'"""cxr-edge on the device."""\n\n__version__ = "{version}"\n', "utf-8")
        for path in source.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={into}", str(source)]
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "PYTHONHASHSEED": "0"}
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, cwd=scratch
        )
    if done.returncode != 0:
        raise NotCollected(f"the device's own wheel could not be built:\n{done.stdout[-2000:]}")
    return next(into.glob("cxr_edge-*.whl"))


def _write_setup(path: Path) -> None:
    setup = configparser.RawConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    for section in ("options.packages.find", "options.package_data", "options.extras_require", "options.entry_points"):
        for key in setup[section]:
            if key not in {"include", "edge", "console_scripts"}:
                setup.remove_option(section, key)
    setup["options.packages.find"]["include"] = "edge*"
    scripts = setup["options.entry_points"]["console_scripts"].splitlines()
    setup["options.entry_points"]["console_scripts"] = "\n".join(line for line in scripts if " edge." in line)
    with path.open("w", encoding="utf-8") as file:
        setup.write(file)
