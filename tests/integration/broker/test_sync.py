"""The second way: HTTPS with client certificates, when MQTT brings no receipts. Real programs, real databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker.database import parse_url
from broker.reader import Reader
from tests.support.authority import Authority
from tests.support.centre import Program, aggregator
from tests.support.mosquitto import Mosquitto
from tests.support.processes import free_port, wait_for
from tests.support.remote import Remote, remote, tls


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/centre.db"
    make: Callable[[], str] = request.getfixturevalue("postgres_database")
    return make()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@dataclass
class Centre:
    """Where the aggregator listens for HTTPS, and how to run it."""

    folder: Path
    authority: Authority
    port: int

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def run(self, mqtt: str, database: str, *, connected: bool = True) -> Iterator[Program]:
        server = self.authority.server("centre")
        files = ["--sync-ca", str(self.authority.ca), "--sync-cert", str(server.cert), "--sync-key", str(server.key)]
        return aggregator(self.folder, mqtt, database, ["--sync", self.url, *files], connected=connected)


@pytest.fixture
def centre(tmp_path: Path, authority: Authority) -> Centre:
    return Centre(tmp_path, authority, free_port())


def stored(database: str, device: Remote) -> list[int]:
    """Every stored seq of the device, as often as it is there."""
    return sorted(row.seq for row in Reader(parse_url(database)).outcomes(device=device.name, limit=100_000))


def device_of(centre: Centre, home: Path, broker: str, name: str = "clinic-1", **more: object) -> Remote:
    lines = tls(centre.authority.ca, centre.authority.client(name)) | {"https": centre.url, "https_after_s": 0.5} | more
    return remote(home, name, broker, **lines)


def test_broker_down_https_delivers_broker_back_mqtt_goes_on(
    mosquitto: Mosquitto, centre: Centre, database: str, tmp_path: Path
) -> None:
    device = device_of(centre, tmp_path / "device", mosquitto.url)
    device.record(700)
    mosquitto.stop()
    with centre.run(mosquitto.url, database, connected=False) as program, device.relay():
        wait_for(lambda: device.waiting() == 0, "all is receipted by HTTPS", 30)
        assert device.said("results go by HTTPS") == 1
        mosquitto.start()
        wait_for(lambda: program.said("Connected to") and device.said("connected to"), "both are back at the broker", 40)
        device.record(5)
        wait_for(lambda: device.waiting() == 0, "the new ones are receipted", 30)
        wait_for(lambda: device.said("HTTPS rests") == 1, "MQTT has taken over again")
        assert stored(database, device) == list(range(1, 706))
        assert "Traceback" not in program.log.read_text() + device.log.read_text()
