"""`make wheelhouse ARCH=aarch64 PY=311`: everything that installs the device on a board without internet, in one file.

build/wheelhouse/cxr-edge-<version>-<architecture>-py<Python>.tar holds, in one folder:

    install.sh, installer/    what a technician starts; the system's Python and its standard library alone
    wheels/                   exactly the files of firmware_configs/locks, the device's own wheel, pip
    requirements.txt          the same with their hashes, for pip's --require-hashes
    package.json              what this package is for
    profiles/, systemd/, journald/, first-boot/
    sbom.cdx.json             what is in it, and under which licences
    SHA256SUMS                of every other file

What pip has fetched before is kept in build/wheelhouse/fetched. The same tree gives the same bytes.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from firmware_configs.supply_chain.sbom import sbom
from firmware_configs.supply_chain.secrets import secrets_in
from firmware_configs.wheelhouse.fetch import fetched_pip, sha256
from firmware_configs.wheelhouse.fetch import wheels as wheels_of
from firmware_configs.wheelhouse.own_wheel import build_own_wheel
from firmware_configs.wheelhouse.resolve import NotCollected
from firmware_configs.wheelhouse.targets import ROOT, Target

_CARRIED = ("install.sh", "installer", "profiles", "systemd", "journald", "first-boot")
_OUTPUT = ROOT / "build" / "wheelhouse"


def collect(target: Target, output: Path = _OUTPUT, version: str = "") -> Path:
    """Write the package for a target and return its path.

    Args: version: as of `build_own_wheel`.

    Raises:
        NotCollected: if a file is missing, is not the one of the lock, or holds a key, a PIN or a password.
    """
    if not target.lock.exists():
        raise NotCollected(f"there is no {target.lock.relative_to(ROOT)}: `make locks` writes those that there can be")
    epoch = _epoch()
    with tempfile.TemporaryDirectory() as scratch:
        wheels = Path(scratch, "wheels")
        wheels.mkdir()
        own = build_own_wheel(wheels, epoch, version)
        made = own.name.split("-")[1]
        folder = Path(scratch, f"cxr-edge-{made}-{target.name}")
        folder.mkdir()
        taken = wheels_of(target)
        published = [*taken, fetched_pip()]
        for wheel in published:
            shutil.copyfile(wheel, wheels / wheel.name)
        wheels.rename(folder / "wheels")
        lines = [_requirement(wheel) for wheel in taken]
        lines.append(f"cxr-edge[edge]=={made} --hash=sha256:{sha256(folder / 'wheels' / own.name)}\n")
        (folder / "requirements.txt").write_text("".join(lines), "utf-8")
        for name in _CARRIED:
            _carry(ROOT / "firmware_configs" / name, folder / name)
        (folder / "sbom.cdx.json").write_text(sbom(target.lock, "cxr-edge", made), "utf-8")
        (folder / "package.json").write_text(json.dumps(_describe(target, made, folder / "wheels"), indent=1) + "\n", "utf-8")
        _require_no_secrets(folder, {wheel.name for wheel in published})
        _write_sums(folder)
        output.mkdir(parents=True, exist_ok=True)
        return _tar(folder, output / f"{folder.name}.tar", epoch)


def _requirement(wheel: Path) -> str:
    name, version = wheel.name.split("-")[:2]
    return f"{name.replace('_', '-').lower()}=={version} --hash=sha256:{sha256(wheel)}\n"


def _carry(source: Path, place: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__"))
    elif source.exists():
        shutil.copyfile(source, place)


def _describe(target: Target, version: str, wheels: Path) -> dict[str, object]:
    unpacked = 0
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            unpacked += sum(item.file_size for item in archive.infolist())
    return {
        "version": version,
        "architecture": target.architecture,
        "python": target.python_version,
        "system_packages": target.uses_system_packages,
        "glibc": _glibc(wheels),
        "unpacked_mb": -(-unpacked // 2**20),
    }


def _require_no_secrets(folder: Path, published: set[str]) -> None:
    """Whoever collects may have a fleet's keys beside the sources. What the locks name is public, to the byte."""
    ours = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in published]
    found = [f"{place.removeprefix(f'{folder}/')} holds {what}" for path in ours for place, what in secrets_in(path)]
    if found:
        raise NotCollected(f"this would travel to every board: {'; '.join(found)}. Take it out of the sources")


def _glibc(wheels: Path) -> str:
    """The oldest GNU C library that all wheels run with, from their tags (PEP 600); manylinux2014 is 2.17."""
    needed = 17
    for wheel in wheels.glob("*.whl"):
        if tags := [
            int(minor) for minor in re.findall(r"manylinux_2_(\d+)_", wheel.name.replace("manylinux2014", "manylinux_2_17"))
        ]:
            needed = max(needed, min(tags))
    return f"2.{needed}"


def _write_sums(folder: Path) -> None:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    (folder / "SHA256SUMS").write_text("".join(f"{sha256(folder / name)}  {name}\n" for name in names), "utf-8")


def _tar(folder: Path, place: Path, epoch: int) -> Path:
    def plain(item: tarfile.TarInfo) -> tarfile.TarInfo:
        item.uid = item.gid = 0
        item.uname = item.gname = "root"
        item.mtime = epoch
        item.mode = 0o755 if item.isdir() or item.name.endswith("install.sh") else 0o644
        return item

    half = place.with_suffix(".part")
    with tarfile.open(half, "w", format=tarfile.PAX_FORMAT) as tar:  # wheels are compressed already
        tar.add(folder, folder.name, recursive=False, filter=plain)
        for path in sorted(folder.rglob("*")):
            tar.add(path, f"{folder.name}/{path.relative_to(folder).as_posix()}", recursive=False, filter=plain)
    half.rename(place)
    return place


def _epoch() -> int:
    """When the tree's last commit was made; where there is no repository, the first moment that a ZIP file can say."""
    asked = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 else 315_532_800


def main(arguments: Sequence[str]) -> int:
    """Write one package; returns an exit status."""
    if len(arguments) != 2:
        sys.stderr.write("Say for which machine: make wheelhouse ARCH=x86_64|aarch64|armv7l PY=310|311|312|313\n")
        return 2
    try:
        made = collect(Target(arguments[0], arguments[1]))
    except NotCollected as error:
        sys.stderr.write(f"make wheelhouse: {error}\n")
        return 2
    sys.stdout.write(f"{made.relative_to(ROOT)}: {made.stat().st_size / 2**20:.0f} MiB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
