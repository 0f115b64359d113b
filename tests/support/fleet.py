"""An authority, its Mosquitto and its devices, made by the commands that people use."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.centre import ROOT, Program, aggregator
from tests.support.clinic import Device
from tests.support.mosquitto import Mosquitto
from tests.support.processes import free_port

PROFILE = """\
# A board of a test.
device = "clinic-0"        # is filled in
facility = "Clinic 0"
state = "state"
site_key = "state/identity/site.key"

[watch]
folder = "inbox"           # X-rays are put here

[commissioning]
readings = 0

[page]
pin = "page.pin"
port = {page}

[relay]
url = "mqtts://centre.example:8883"    # is filled in
receipt_timeout_s = 1.0
status_every_s = 1.0
{more}
"""


def broker_command(*arguments: object, home: Path | None = None) -> list[str]:
    """Return the words of a `cxr-broker` command."""
    return [sys.executable, "-m", "broker.cli", *map(str, arguments)]


def run(*arguments: object, typed: str = "", program: str = "broker.cli", fails: bool = False) -> str:
    """Run a command of the centre (or of the device), and return what it says."""
    done = subprocess.run(
        [sys.executable, "-m", program, *map(str, arguments)], input=typed, capture_output=True, text=True, cwd=ROOT, check=False
    )
    said = done.stdout + done.stderr
    assert "Traceback" not in said, said
    assert (done.returncode == 2) == fails, said
    return said


@dataclass
class Fleet:
    """An authority in a folder, and the ports that it names."""

    folder: Path
    mqtt: int
    https: int

    @property
    def dir(self) -> Path:
        return self.folder / "authority"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def enroll(self, *arguments: object, fails: bool = False, typed: str = "") -> str:
        return run("enroll", *arguments, "--dir", self.dir, "--out", self.out, fails=fails, typed=typed)

    def code(self, device: str) -> str:
        """Return the code on a device's paper."""
        [line] = [line for line in (self.out / f"{device}.txt").read_text().splitlines() if line.startswith("Code ")]
        return line.split()[1]

    def device(self, name: str, home: Path | None = None, more: Sequence[str] = (), typed: str = "") -> Device:
        """Enrol a board with the files that were made for a device."""
        home = home or self.folder / name
        home.mkdir(exist_ok=True)
        (home / "inbox").mkdir(exist_ok=True)
        profile = self.folder / "profile.toml"
        profile.write_text(PROFILE.format(page=free_port(), more="\n".join(more)))
        arguments = (self.out / f"{name}.enrol", "--config", home / "device.toml", "--profile", profile)
        run("enrol", *arguments, typed=f"{self.code(name)}\n{typed}", program="edge.cli")
        return Device(home, name)

    @contextlib.contextmanager
    def mosquitto(self) -> Iterator[Mosquitto]:
        broker = Mosquitto(self.dir / "mosquitto.conf", self.mqtt, self.folder / "mosquitto.log")
        broker.start()
        try:
            yield broker
        finally:
            broker.stop()

    @contextlib.contextmanager
    def aggregator(self, more: Sequence[str] = ()) -> Iterator[Program]:
        arguments = ["--authority", str(self.dir), "--sync", f"https://127.0.0.1:{self.https}", *more]
        with aggregator(self.folder, f"mqtts://127.0.0.1:{self.mqtt}", self.database, arguments) as program:
            yield program

    @property
    def database(self) -> str:
        return f"sqlite:///{self.folder}/centre.db"


def make_fleet(folder: Path, *more: object) -> Fleet:
    """Make an authority for this machine."""
    fleet = Fleet(folder, free_port(), free_port())
    os.makedirs(folder, exist_ok=True)
    run("init", fleet.dir, "--host", "127.0.0.1", "--mqtt-port", fleet.mqtt, "--https-port", fleet.https, *more)
    return fleet
