"""The systems that packages are made for, as pip names them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ROOT / "firmware_configs" / "locks"
PIP_LOCK = LOCKS / "pip.txt"
"""pip itself, which installs the others on the board: Debian's Python comes without it."""

# The oldest C library that anybody's wheels ask for, and that of the oldest system served (Ubuntu 22.04, as on a Jetson).
_OLDEST_GLIBC, _NEWEST_GLIBC = 17, 35
_PYTHONS = ("310", "311", "312", "313")


@dataclass(frozen=True)
class Target:
    """One architecture (as `uname -m` says it) and one Python (two or three digits: 311 is 3.11)."""

    architecture: str
    python: str

    @property
    def name(self) -> str:
        """As in file names."""
        return f"{self.architecture}-py{self.python}"

    @property
    def lock(self) -> Path:
        """The committed list of exact versions with their hashes."""
        return LOCKS / f"{self.name}.txt"

    @property
    def python_version(self) -> str:
        """With its dot."""
        return f"{self.python[0]}.{self.python[1:]}"

    @property
    def uses_system_packages(self) -> bool:
        """Whether numpy and Pillow are the system's: nobody publishes them for 32-bit ARM."""
        return self.architecture == "armv7l"

    @property
    def compiled(self) -> frozenset[str]:
        """What nobody publishes for this target in a form that runs: the lock names their sources."""
        return frozenset({"cffi", "msgspec"}) if self.architecture == "armv7l" else frozenset()

    @property
    def built(self) -> Path:
        """Where the wheels lie that were compiled for this target."""
        return ROOT / "build" / "built" / self.name

    def pip_options(self) -> list[str]:
        """Return what makes pip choose files for this target, wherever it runs."""
        options = ["--only-binary=:all:", "--implementation=cp", f"--python-version={self.python}", f"--abi=cp{self.python}"]
        options += ["--abi=abi3", "--abi=none"]
        for minor in range(_NEWEST_GLIBC, _OLDEST_GLIBC - 1, -1):
            options.append(f"--platform=manylinux_2_{minor}_{self.architecture}")
        options.append(f"--platform=manylinux2014_{self.architecture}")
        return options

    def markers(self) -> dict[str, str]:
        """Return the environment markers (PEP 508) of this target."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python_version}.0",
            "os_name": "posix",
            "platform_machine": self.architecture,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python_version}.0",
            "python_version": self.python_version,
            "sys_platform": "linux",
        }


def published_targets() -> Iterator[Target]:
    """Yield the targets for which all wheels are published."""
    for architecture in ("x86_64", "aarch64"):
        for python in _PYTHONS:
            yield Target(architecture, python)


NARROW = Target("armv7l", "311")
"""The second class: 32-bit ARM, whose last TFLite is for this Python."""
