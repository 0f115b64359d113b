"""A device laid out as on a board, whose processes run under the restrictions of their units (tests/support/confined.py)."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tests.support.clinic import Device, make_device
from tests.support.confined import Cell
from tests.support.manager import Manager
from tests.support.processes import end

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "firmware_configs/systemd"
USER = 64321
"""Who cxr-edge is here; needs no entry in /etc/passwd."""
CURRENT = "/opt/cxr-edge/current"


def service(unit: Path) -> dict[str, list[str]]:
    """Return all settings of [Service] of a unit file, each with its values in order."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in unit.read_text("utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif section == "Service" and "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key.strip(), []).append(value.strip())
    return found


@dataclass
class Board:
    """A device whose files are where a board has them, seen by its processes alone. `device` has them as seen from outside."""

    device: Device
    home: Path
    listens: Manager = field(init=False)

    def __post_init__(self) -> None:
        manager = self.home / "manager"
        manager.mkdir(mode=0o755)
        self.listens = Manager(abstract=False, folder=manager)
        Path(self.listens.address).chmod(0o777)

    def cell(self, name: str, command: Sequence[str] = ()) -> Cell:
        """Return what runs a unit; `command` instead of its own."""
        settings = service(UNITS / f"cxr-{name}.service")
        (started,) = settings["ExecStart"]
        state, inbox = "/var/lib/cxr-edge", "/srv/cxr/inbox"
        environment = {
            "PATH": os.defpath,
            "LD_LIBRARY_PATH": f"{CURRENT}/python/lib",  # an interpreter that was built where it is not seen has its library there
            "PYTHONPATH": f"{CURRENT}/site-packages:{CURRENT}/code",
            "NOTIFY_SOCKET": "/srv/manager/notify",
            "WATCHDOG_USEC": "90000000",
        }
        return Cell(
            settings=settings,
            command=list(command) or shlex.split(started),
            environment=environment,
            home=str(self.home / "laid-over"),
            binds={
                f"{CURRENT}/python": sys.base_prefix,
                f"{CURRENT}/site-packages": sysconfig.get_path("purelib"),
                f"{CURRENT}/code/edge": str(ROOT / "edge"),
                f"{CURRENT}/bin": str(self.home / "bin"),
                "/etc/cxr-edge": str(self.home / "etc"),
                "/srv/manager": str(self.home / "manager"),
                state: str(self.device.state),
                inbox: str(self.device.inbox),
            },
            writable=[state, *[inbox for _ in settings.get("ReadWritePaths", [])]],
            user=USER,
        )

    @contextlib.contextmanager
    def running(self, name: str, command: Sequence[str] = (), wrapper: Sequence[str] = ()) -> Iterator[subprocess.Popen[bytes]]:
        """Run one process of the device as its unit would; `wrapper` stands before it, outside of the restrictions."""
        cell = msgspec.json.encode(self.cell(name, command))
        with self.device.log.open("ab") as log:
            words = [*wrapper, sys.executable, "-m", "tests.support.confined"]
            process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=ROOT)
        assert process.stdin is not None
        try:
            process.stdin.write(cell)
            process.stdin.close()
            yield process
        finally:
            end(process)

    def says(self, name: str, code: str) -> str:
        """Return what a piece of Python prints under the restrictions of a unit."""
        before = len(self.log())
        with self.running(name, (f"{CURRENT}/bin/python", "-c", code)) as process:
            assert process.wait(60) == 0, self.log()[before:]
        return self.log()[before:]

    def log(self) -> str:
        """Return what the processes have written."""
        return self.device.log.read_text("utf-8", "replace") if self.device.log.exists() else ""


@contextlib.contextmanager
def board(home: Path, broker: str, lines: Sequence[str] = ()) -> Iterator[Board]:
    """Lay out a device under `home`; `lines` are added to its device.toml."""
    device = make_device(home / "device", broker)
    text = device.config.read_text("utf-8")
    for relative, absolute in (
        ('state = "state"', 'state = "/var/lib/cxr-edge"'),
        ('"site.key"', '"/var/lib/cxr-edge/identity/site.key"'),
        ('"inbox"', '"/srv/cxr/inbox"'),
        ('"page.pin"', '"/etc/cxr-edge/page.pin"'),
    ):
        assert relative in text
        text = text.replace(relative, absolute)
    (home / "etc").mkdir(mode=0o755)
    (home / "bin").mkdir(mode=0o755)
    (home / "etc/device.toml").write_text(text + "\n".join(["", *lines, ""]), "utf-8")
    (device.home / "page.pin").rename(home / "etc/page.pin")
    (device.state / "identity").mkdir(mode=0o700)
    (device.home / "site.key").rename(device.state / "identity/site.key")
    for name, module in (("cxr-edge", " -m edge.cli"), ("python", "")):
        program = home / "bin" / name
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        program.write_text(f'#!/bin/sh\nexec {CURRENT}/python/bin/{version}{module} "$@"\n', "utf-8")
        program.chmod(0o755)
    for path in (home / "etc/device.toml", home / "etc/page.pin"):
        path.chmod(0o640)
        os.chown(path, 0, USER)
    for folder, names, files in os.walk(home / "device"):
        for name in (".", *names, *files):
            os.chown(Path(folder, name), USER, USER)
    made = Board(device, home)
    try:
        yield made
    finally:
        made.listens.close()
