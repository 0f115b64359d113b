"""An authority, its Mosquitto and its devices, made by the commands that people use."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from broker.cli import main
from broker.database import parse_url
from broker.reader import Reader
from tests.support.centre import ROOT, Program, aggregator
from tests.support.clinic import Device
from tests.support.mosquitto import Mosquitto
from tests.support.processes import free_port, listens, wait_for
from tests.support.remote import Remote

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
{more}
"""


def run(
    *arguments: object, typed: str = "", program: str = "broker.cli", fails: bool = False, clock: Mapping[str, str] | None = None
) -> str:
    """Run a command of the centre (or of the device), and return what it says; `fails`: with status 2 and one sentence."""
    if program == "broker.cli" and clock is None:  # a process for each would take most of the tests' time
        result = CliRunner().invoke(main, [str(argument) for argument in arguments], input=typed, catch_exceptions=False)
        assert (result.exit_code == 2) == fails, result.output
        assert not fails or result.output.count("\n") == 1, result.output
        return result.output
    done = subprocess.run(
        [sys.executable, "-m", program, *map(str, arguments)],
        input=typed,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        env={**os.environ, **(clock or {})},
    )
    said = done.stdout + done.stderr
    assert "Traceback" not in said, said
    assert (done.returncode == 2) == fails, said
    assert not fails or said.count("\n") == 1, said
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

    def site_key_lines(self, device: str) -> str:
        """Return what a person types from sheet 2 of a device's paper."""
        sheet = (self.out / f"{device}.txt").read_text().partition("\f")[2]
        return "\n".join(line for line in sheet.splitlines()[1:] if not line.startswith("#"))

    def board(self, name: str, home: Path | None = None, more: Sequence[str] = ()) -> Device:
        """Return a board that is not enrolled yet; `more` are lines of [relay] in its profile."""
        home = home or self.folder / name
        (home / "inbox").mkdir(parents=True, exist_ok=True)
        (home / "profile.toml").write_text(PROFILE.format(page=free_port(), more="\n".join(more)))
        return Device(home, name)

    def enrol(
        self, board: Device, typed: str | None = None, *, file: Path | None = None, fails: bool = False, **options: Any
    ) -> str:
        """Run `cxr-edge enrol` on a board; `typed`: what a person types, without it the code of its paper."""
        file = file or self.out / f"{board.name}.enrol"
        arguments = (file, "--config", board.config, "--profile", board.home / "profile.toml")
        typed = self.code(board.name) + "\n" if typed is None else typed
        return run("enrol", *arguments, typed=typed, program="edge.cli", fails=fails, **options)

    def device(self, name: str, home: Path | None = None, more: Sequence[str] = ()) -> Device:
        """Enrol a board with the files that were made for a device."""
        board = self.board(name, home, more)
        self.enrol(board)
        return board

    def remote(self, name: str, home: Path | None = None, more: Sequence[str] = ()) -> Remote:
        """As `device`, for tests in which its relay alone runs."""
        return Remote(self.device(name, home, more).home, name)

    def standing(self, device: str) -> dict[str, Any]:
        """Return what `cxr-broker fleet` says of a device."""
        rows = [json.loads(line) for line in run("fleet", "--dir", self.dir, "--json").splitlines()]
        [row] = [row for row in rows if row["device"] == device]
        return dict(row)

    def identity(self, home: Path) -> Path:
        """Return the key and certificate of an enrolled device."""
        return home / "state" / "identity" / "device.pem"

    def tls(self, home: Path) -> tuple[Path, Path, Path]:
        """Return authority, certificate and key of an enrolled device, for a client of the test's own."""
        identity = home / "state" / "identity"
        return identity / "ca.pem", identity / "device.pem", identity / "device.pem"

    @contextlib.contextmanager
    def mosquitto(self, clock: Mapping[str, str] | None = None) -> Iterator[Mosquitto]:
        """Run the broker of the authority; `clock`: what its environment has of another time."""
        broker = Mosquitto(self.dir / "mosquitto.conf", self.mqtt, self.folder / "mosquitto.log", environment=clock)
        broker.start()
        try:
            yield broker
        finally:
            broker.stop()

    @contextlib.contextmanager
    def aggregator(self, clock: Mapping[str, str] | None = None, *, connected: bool = True) -> Iterator[Program]:
        """Run the aggregator of the authority."""
        arguments = ["--authority", str(self.dir), "--sync", f"https://127.0.0.1:{self.https}"]
        url = f"mqtts://127.0.0.1:{self.mqtt}"
        with aggregator(self.folder, url, self.database, arguments, connected=connected, environment=clock) as program:
            # A device that comes too early pauses, longer each time.
            wait_for(lambda: listens(self.https), "the aggregator serves HTTPS", 60)
            yield program

    def outcomes(self, device: str) -> list[tuple[str, int]]:
        """Return (epoch, seq) of every outcome of a device at the centre."""
        return sorted((row.epoch, row.seq) for row in Reader(parse_url(self.database)).outcomes(device=device))

    @property
    def database(self) -> str:
        return f"sqlite:///{self.folder}/centre.db"


def make_fleet(folder: Path, *more: object, host: str = "127.0.0.1") -> Fleet:
    """Make an authority for this machine; `host`: under which name or address its devices reach it."""
    fleet = Fleet(folder, free_port(), free_port())
    os.makedirs(folder, exist_ok=True)
    run("init", fleet.dir, "--host", host, "--mqtt-port", fleet.mqtt, "--https-port", fleet.https, *more)
    return fleet


@contextlib.contextmanager
def mqtt_socket(fleet: Fleet, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> Iterator[ssl.SSLSocket]:
    """A TLS connection to the broker on which a connection of MQTT was asked for."""
    with (
        socket.create_connection(("127.0.0.1", fleet.mqtt), 5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as tls,
    ):
        tls.sendall(bytes.fromhex("101100044d51545405020014000004") + b"test")
        yield tls


def lets_in(fleet: Fleet, pem: Path, session: ssl.SSLSession | None = None, context: ssl.SSLContext | None = None) -> bool:
    """Whether the broker answers the connection request of who has that key and certificate."""
    if context is None:
        context = ssl.create_default_context(cafile=str(fleet.dir / "ca.pem"))
        context.load_cert_chain(pem)
    try:
        with mqtt_socket(fleet, context, session) as tls:
            return bool(tls.recv(4))
    except OSError:
        return False
