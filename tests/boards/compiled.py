"""What nobody publishes for 32-bit ARM, compiled in an emulated system from the sources that the lock names."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from firmware_configs.wheelhouse.fetch import fetched_pip, sources
from firmware_configs.wheelhouse.targets import Target
from tests.support.board_root import board, debian_root

_COMPILER = ("gcc", "libc6-dev", "libffi-dev", "pkg-config", "python3", "python3-dev")
_BUILT_WITH = ("setuptools>=80", "setuptools-scm>=8", "wheel")


def compile_missing(target: Target, architecture: str, scratch: Path) -> None:
    """Put the wheels that are missing into `target.built`, whole or not at all.

    Args: architecture: Debian's name of it.

    Raises:
        NotCollected: if the sources cannot be had.
        AssertionError: if one cannot be compiled, with the compiler's last words.
    """
    missing = [path for path in sources(target) if not list(target.built.glob(f"{path.name.removesuffix('.tar.gz')}-*.whl"))]
    if not missing:
        return
    tools = scratch / "tools"
    # Pure Python, so that they run there as well.
    fetch = ["download", "-qq", "--only-binary=:all:", "--platform=any", "--implementation=py", f"--dest={tools}"]
    subprocess.run([sys.executable, "-m", "pip", *fetch, f"--python-version={target.python}", *_BUILT_WITH], check=True)
    folder = scratch / "compiler"
    with board(debian_root(architecture, _COMPILER), folder) as system:
        system.put(tools, "/root/tools")
        system.put(fetched_pip(), f"/root/tools/{fetched_pip().name}")
        for path in missing:
            system.put(path, f"/root/{path.name}")
            pip = (
                "python3",
                f"/root/tools/{fetched_pip().name}/pip",
                "wheel",
                "--no-index",
                "--find-links=/root/tools",
                "--no-deps",
            )
            system.must(*pip, "--wheel-dir=/root/built", f"/root/{path.name}", timeout_s=3600)
        target.built.mkdir(parents=True, exist_ok=True)
        for name in system.must("ls", "/root/built").split():
            part = target.built / f".{name}.part"
            with part.open("wb") as file:
                subprocess.run(system.inside("cat", f"/root/built/{name}"), stdout=file, check=True)
            shutil.move(part, target.built / name)
