"""A real Mosquitto with the project's own configuration."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from broker.mosquitto.render import fleet_files, write_loopback
from tests.support.authority import Authority
from tests.support.processes import end, find_program, free_port, wait_for_port


@dataclass
class Mosquitto:
    """A broker that can be stopped and started again on the same port with the same data."""

    configuration: Path
    port: int
    log: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address as the commands take it (plain, no TLS)."""
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it listens."""
        program = find_program("mosquitto", "mosquitto")
        with self.log.open("ab") as output:
            self.process = subprocess.Popen([program, "-c", str(self.configuration)], stdout=output, stderr=output)
        wait_for_port(self.port, self.process, self.log)

    def stop(self) -> None:
        """End it as a service manager would; it writes its data to disk."""
        if self.process is not None:
            end(self.process)

    def kill(self) -> None:
        """End it without a chance to write anything."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def loopback_mosquitto(folder: Path) -> Iterator[Mosquitto]:
    """Run a broker from `loopback.conf` with its data in `folder`."""
    port = free_port()
    broker = Mosquitto(write_loopback(folder, port), port, folder / "mosquitto.log")
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


def write_fleet(folder: Path, port: int, authority: Authority) -> Path:
    """Write `fleet.conf` and what it names for an authority of tests, and return the configuration's path."""
    server = authority.server()
    (folder / "broker").mkdir(parents=True, exist_ok=True)
    (folder / "ca.pem").write_bytes(authority.ca.read_bytes())
    (folder / "crl.pem").write_bytes(authority.crl())
    (folder / "broker.pem").write_bytes(server.key.read_bytes() + server.cert.read_bytes())
    for name, text in fleet_files(folder, port, "aggregator", "operator", "dashboard").items():
        (folder / name).write_text(text)
    return folder / "mosquitto.conf"


@contextlib.contextmanager
def fleet_mosquitto(folder: Path, authority: Authority) -> Iterator[Mosquitto]:
    """Run a broker from `fleet.conf`: mutual TLS and the project's access rules."""
    port = free_port()
    broker = Mosquitto(write_fleet(folder, port, authority), port, folder / "mosquitto.log")
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()
