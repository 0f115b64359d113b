"""A package as of `make wheelhouse`, with the real installer and units, whose software is a stand-in that installs in a second."""

from __future__ import annotations

import base64
import hashlib
import json
import platform
import shutil
import zipfile
from pathlib import Path

from firmware_configs.wheelhouse.targets import ROOT, Target

# What the installer asks the software: to enrol, whether it works, what waits.
_PROGRAM = """
import os, sys
from pathlib import Path
VERSION, BROKEN = {version!r}, {broken!r}
CONFIG = Path("/etc/cxr-edge/device.toml")
def main():
    command = sys.argv[1]
    if command == "--version":
        print("cxr-edge", VERSION)
    elif command == "enrol":
        if "right" not in sys.stdin.readline():
            sys.exit("cxr-edge: the code does not open it.")
        CONFIG.write_text('device = "clinic-1"\\nfacility = "Clinic 1"\\n[page]\\npin = "/etc/cxr-edge/page.pin"\\n')
        CONFIG.chmod(0o644)
    elif command == "check":
        if BROKEN and VERSION in os.readlink("/opt/cxr-edge/current"):
            print("FAIL  model: it was found broken")
            sys.exit(1)
        print("ok")
    elif command == "outbox":
        if Path("/var/lib/cxr-edge/outbox.db").read_text() > VERSION:
            sys.exit("cxr-edge: the outbox was written by a newer version")
"""


def small_package(folder: Path, pip_wheel: Path, version: str, *, broken: bool = False) -> Path:
    """Make the package in `folder`, unpacked; a broken one finds so once it is in service. Units differ from version to version."""
    folder.mkdir(parents=True)
    for name in ("install.sh", "installer", "systemd", "journald", "profiles"):
        source = ROOT / "firmware_configs" / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    unit = folder / "systemd" / "cxr-infer.service"
    unit.write_text(f"# of version {version}\n{unit.read_text()}")
    (folder / "wheels").mkdir()
    shutil.copy(pip_wheel, folder / "wheels")
    wheel = _wheel(folder / "wheels", version, _PROGRAM.format(version=version, broken=broken))
    (folder / "requirements.txt").write_text(f"cxr-edge=={version} --hash=sha256:{_sha256(wheel.read_bytes())}\n")
    target = Target(platform.machine(), "311")
    described = {"version": version, "architecture": target.architecture, "python": target.python_version}
    (folder / "package.json").write_text(json.dumps({**described, "system_packages": False, "glibc": "2.17", "unpacked_mb": 20}))
    write_sums(folder)
    return folder


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS of all that is there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    lines = [f"{_sha256(path.read_bytes())}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(lines))


def _wheel(folder: Path, version: str, program: str) -> Path:
    info = f"cxr_edge-{version}.dist-info"
    files = {
        "stand_in.py": program,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: cxr-edge\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\ncxr-edge = stand_in:main\n",
    }
    record = "".join(f"{name},sha256={_record(text)},{len(text.encode())}\n" for name, text in files.items())
    path = folder / f"cxr_edge-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), text)
    return path


def _record(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
