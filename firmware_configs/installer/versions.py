"""The versions under /opt/cxr-edge/versions: a virtual environment each, at its final place, complete once `.complete` is there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from .checks import disk_trouble
from .durable import force_tree, fsync_folder, make_folder, parts, remove_tree, unlink_durably, write_durably
from .environment import clean
from .errors import Refused
from .package import Package
from .places import Places

_MARK = ".complete"
# What goes with a version, so that it can be confirmed, left and removed without the package that it came in.
_KEPT = (
    "installer",
    "install.sh",
    "systemd",
    "journald",
    "first-boot",
    "profiles",
    "package.json",
    "requirements.txt",
    "SHA256SUMS",
    "sbom.cdx.json",
)
_FULL = "No space left on device"


def is_complete(version: Path) -> bool:
    """Whether a version was made to its end."""
    return (version / _MARK).exists()


def half_made(places: Places) -> list[Path]:
    """Return the versions that an installation or a removal that was cut off has left."""
    if not places.versions.is_dir():
        return []
    return sorted(path for path in places.versions.iterdir() if not is_complete(path))


def half_written(places: Places) -> list[Path]:
    """Return the files that were cut off before they had their name."""
    folders = (places.software, places.config, places.units, *sorted(places.units.glob("*.wants")), places.journald)
    found = [path for folder in folders for path in parts(folder)]
    # Not all that lies there is ours.
    return found + [path for path in parts(places.command.parent) if path.name == f".{places.command.name}.part"]


def remove_version(version: Path) -> None:
    """Remove a version; from the first moment on it does not count as complete."""
    unlink_durably(version / _MARK)
    remove_tree(version)


def build_version(package: Package, places: Places) -> None:
    """Make the virtual environment of a package's software; on return it is on the disk and complete.

    Raises:
        Refused: if the card is full or fails, or pip refuses a file; what was made is removed.
    """
    version = places.versions / package.name
    try:
        make_folder(places.versions)
        remove_version(version)
        _build(package, version)
    except OSError as error:
        shutil.rmtree(version, ignore_errors=True)
        raise Refused(disk_trouble(error, version)) from None
    except BaseException:
        shutil.rmtree(version, ignore_errors=True)
        raise


def _build(package: Package, version: Path) -> None:
    system = ["--system-site-packages"] if package.system_packages else []
    # Debian's Python comes without what puts pip into an environment; it needs none, since pip runs from its wheel.
    _run(sys.executable, "-I", "-m", "venv", "--without-pip", *system, str(version))
    wheels = package.folder / "wheels"
    pip = next(wheels.glob("pip-*.whl")) / "pip"
    options = ["--isolated", "--disable-pip-version-check", "--no-cache-dir", "--no-input", "--quiet"]
    # The list is whole and exact, so nothing is left to resolve.
    install = ["install", "--no-index", f"--find-links={wheels}", "--require-hashes", "--no-deps", "--no-warn-script-location"]
    _run(str(version / "bin/python"), "-I", str(pip), *options, *install, f"--requirement={package.folder / 'requirements.txt'}")
    for name in _KEPT:
        source = package.folder / name
        if source.is_dir():
            shutil.copytree(source, version / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, version / name)
    force_tree(version)
    write_durably(version / _MARK, f"{package.version}\n".encode())
    fsync_folder(version.parent)


def _run(*command: str) -> None:
    # As long as a program that was started here runs, the lock is held: what it still writes is not removed under its hands.
    done = subprocess.run(
        command,
        env=clean(),
        close_fds=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        return
    if _FULL in done.stdout:
        raise Refused(f"The card is full: the software does not fit into {command[0]}. Make room, or use a larger card.")
    last = done.stdout.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
    raise Refused(f"The software could not be put in place: {last[0]}")
