"""The second way: HTTPS with client certificates, when MQTT brings no receipts. Real programs, real databases."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select

from broker import schema
from broker.database import parse_url, reader_engine
from broker.reader import Reader
from edge.config import Relay
from edge.delivery.mqtt import KEEPALIVE_S, Closed, Connected, PahoLink
from tests.support.authority import Authority
from tests.support.centre import Program, aggregator
from tests.support.mosquitto import Mosquitto
from tests.support.processes import end, free_port, wait_for
from tests.support.remote import Remote, remote, tls, wire
from tests.support.wire_device import wire_device


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
    with reader_engine(parse_url(database)).connect() as connection:
        rows = connection.execute(select(schema.outcomes.c.seq).where(schema.outcomes.c.device == device.name))
        return sorted(int(row[0]) for row in rows)


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


@pytest.mark.parametrize("busy", [False, True])
def test_a_link_that_carries_nothing_any_more_is_noticed(mosquitto: Mosquitto, busy: bool) -> None:
    assert 2 * KEEPALIVE_S + 1 <= 30
    with wire(mosquitto.port) as way:
        link = PahoLink(Relay(url=f"mqtt://127.0.0.1:{way.port}"), "clinic-1", "cxr/v1/clinic-1/status", b"{}", keepalive_s=1)

        def happened(kind: type) -> bool:
            if busy:
                link.publish("cxr/v1/clinic-1/result", b"{}")
            return any(isinstance(event, kind) for event in link.poll(0.1))

        wait_for(lambda: happened(Connected), "the broker answers")
        link.poll(0.0).clear()
        way.cut()
        wait_for(lambda: happened(Closed), "the link is given up", 20)


def test_half_open_mqtt_is_noticed_and_https_delivers_meanwhile(
    mosquitto: Mosquitto, centre: Centre, authority: Authority, tmp_path: Path
) -> None:
    """A radio link that carries nothing any more: no connection is closed, nothing arrives."""
    database = f"sqlite:///{tmp_path}/centre.db"
    with wire(mosquitto.port) as link, centre.run(mosquitto.url, database):
        device = device_of(centre, tmp_path / "device", f"mqtt://127.0.0.1:{link.port}")
        with device.relay():
            device.record(3)
            wait_for(lambda: device.waiting() == 0, "MQTT delivers")
            assert device.said("results go by HTTPS") == 0
            link.cut()
            device.record(3)
            wait_for(lambda: device.waiting() == 0, "HTTPS delivers", 60)
            assert device.said("results go by HTTPS") == 1
            wait_for(lambda: device.said("the connection was lost"), "the dead link is noticed", 60)
            link.mend()
            wait_for(lambda: device.said("connected to") == 2, "it connects again", 60)
            device.record(3)
            wait_for(lambda: device.said("HTTPS rests") == 1, "MQTT has taken over again")
            wait_for(lambda: device.waiting() == 0, "all is receipted")
    assert stored(database, device) == list(range(1, 10))


def test_a_flood_of_connections_leaves_descriptors_for_mqtt_and_the_database(
    mosquitto: Mosquitto, centre: Centre, tmp_path: Path
) -> None:
    """A quarter of the usual limit, and more connections than that; devices deliver both ways all the same."""
    database = f"sqlite:///{tmp_path}/centre.db"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    with contextlib.ExitStack() as stack:
        try:
            program = stack.enter_context(centre.run(mosquitto.url, database))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

        def more(count: int) -> None:
            for number in range(count):
                from_ = (f"127.0.0.{2 + number % 6}", 0)
                stack.enter_context(socket.create_connection(("127.0.0.1", centre.port), 5, from_))

        more(400)
        assert len(os.listdir(f"/proc/{program.process.pid}/fd")) < 128
        by_https = device_of(centre, tmp_path / "one", f"mqtt://127.0.0.1:{free_port()}")
        by_https.record(3)
        with by_https.relay():
            wait_for(lambda: by_https.waiting() == 0, "HTTPS delivers", 30)
        mosquitto.stop()
        more(100)
        mosquitto.start()
        wait_for(lambda: program.log.read_text().count("Connected to") == 2, "the aggregator is back at the broker", 40)
        by_mqtt = device_of(centre, tmp_path / "two", mosquitto.url, "clinic-2", https_after_s=600)
        by_mqtt.record(3)
        with by_mqtt.relay():
            wait_for(lambda: by_mqtt.waiting() == 0, "MQTT delivers", 30)
        said = program.log.read_text()
        assert "Traceback" not in said
        assert said.count("\n") < 20
    assert stored(database, by_https) == stored(database, by_mqtt) == [1, 2, 3]


def test_both_ways_at_once_count_once(mosquitto: Mosquitto, centre: Centre, database: str, tmp_path: Path) -> None:
    """The same rows by HTTPS from the first to the last, and by MQTT from the last to the first."""
    count = 3000
    device = device_of(centre, tmp_path / "device", f"mqtt://127.0.0.1:{free_port()}", https_after_s=0.1)
    device.record_at_once(count)
    with contextlib.closing(device.outbox()) as outbox:
        rows = outbox.unreceipted(0, count)
    with centre.run(mosquitto.url, database), wire_device(device.name, mosquitto.port) as same, device.relay():
        for row in reversed(rows):
            same.send_bytes(f"cxr/v1/{device.name}/result", row.payload)
        wait_for(lambda: device.waiting() == 0, "all is receipted by HTTPS", 60)
        same.wait_receipt(count, timeout_s=60)
        wait_for(lambda: device.said("results go by HTTPS") == 1, "it says so, once what it was told is noted")
        assert stored(database, device) == list(range(1, count + 1))
        assert Reader(parse_url(database)).totals().results == count
        assert Reader(parse_url(database)).quarantine() == []


def test_the_centre_killed_in_the_middle_of_a_batch(mosquitto: Mosquitto, centre: Centre, database: str, tmp_path: Path) -> None:
    device = device_of(centre, tmp_path / "device", f"mqtt://127.0.0.1:{free_port()}")
    count = 6000
    device.record_at_once(count)
    with device.relay():
        for _ in range(3):
            with centre.run(mosquitto.url, database) as program:
                before = device.waiting()
                wait_for(lambda before=before: device.waiting() < before, "something is delivered", 90)
                end(program.process, signal.SIGKILL)
            promised = count - device.waiting()
            assert stored(database, device)[:promised] == list(range(1, promised + 1)), "what was receipted is there"
        with centre.run(mosquitto.url, database):
            wait_for(lambda: device.waiting() == 0, "all is receipted", 120)
    assert stored(database, device) == list(range(1, count + 1))
    assert Reader(parse_url(database)).totals().results == count


def test_a_centre_restored_from_a_backup_gets_back_what_it_lost(mosquitto: Mosquitto, centre: Centre, tmp_path: Path) -> None:
    device = device_of(centre, tmp_path / "device", f"mqtt://127.0.0.1:{free_port()}")
    device.record(20)
    with device.relay():
        with centre.run(mosquitto.url, f"sqlite:///{tmp_path}/centre.db"):
            wait_for(lambda: device.waiting() == 0, "all is receipted", 30)
        restored = f"sqlite:///{tmp_path}/restored.db"
        device.record(1)
        with centre.run(mosquitto.url, restored):
            wait_for(lambda: device.said("has lost 20 results"), "it asks for them", 60)
            wait_for(lambda: device.waiting() == 0, "they are receipted again", 60)
            assert stored(restored, device) == list(range(1, 22))


def test_another_devices_certificate_delivers_nothing_and_loses_nothing(
    mosquitto: Mosquitto, centre: Centre, authority: Authority, tmp_path: Path
) -> None:
    database = f"sqlite:///{tmp_path}/centre.db"
    lines = tls(authority.ca, authority.client("clinic-1"))
    device = device_of(centre, tmp_path / "device", f"mqtt://127.0.0.1:{free_port()}", "clinic-2", **lines)
    stranger = Authority(tmp_path / "other", "another authority")
    untrusting = device_of(centre, tmp_path / "untrusting", f"mqtt://127.0.0.1:{free_port()}", "clinic-3", ca=str(stranger.ca))
    with centre.run(mosquitto.url, database) as program, device.relay(), untrusting.relay():
        device.record(1)
        untrusting.record(1)
        wait_for(lambda: device.said("not the name of the device"), "it is told why", 30)
        wait_for(lambda: untrusting.said("certificate verify failed"), "it says why", 30)
        assert program.said("Refused an HTTPS delivery")
    assert (device.waiting(), untrusting.waiting()) == (1, 1)
    assert Reader(parse_url(database)).totals().results == 0
    assert "Traceback" not in device.log.read_text() + untrusting.log.read_text()


def test_a_day_of_a_large_hospital_over_https(mosquitto: Mosquitto, centre: Centre, database: str, tmp_path: Path) -> None:
    count = 18_000
    device = device_of(centre, tmp_path / "device", f"mqtt://127.0.0.1:{free_port()}", https_after_s=0.1)
    device.record_at_once(count)
    with centre.run(mosquitto.url, database), device.relay():
        wait_for(lambda: device.waiting() < count, "the first are delivered", 30)
        began, left = time.monotonic(), device.waiting()
        wait_for(lambda: device.waiting() == 0, "all is receipted", 240)
        print(f"\n{left} outcomes by HTTPS in {time.monotonic() - began:.1f} s")
    assert stored(database, device) == list(range(1, count + 1))
