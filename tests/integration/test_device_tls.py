"""The real device with the real fleet configuration of the broker: TLS, client certificates, ACL."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.mqtt import Address
from broker.ping import ping
from tests.support.authority import Authority
from tests.support.centre import aggregator
from tests.support.clinic import Device, make_device, small_picture
from tests.support.mosquitto import fleet_mosquitto
from tests.support.processes import wait_for


@pytest.fixture
def authority(tmp_path):
    (tmp_path / "ca").mkdir()
    return Authority(tmp_path / "ca")


@pytest.fixture
def fleet(tmp_path, authority):
    (tmp_path / "fleet").mkdir()
    with fleet_mosquitto(tmp_path / "fleet", authority) as broker:
        yield broker


@pytest.fixture
def centre(tmp_path, fleet, authority):
    identity = authority.client("aggregator")
    files = ["--ca", str(authority.ca), "--cert", str(identity.cert), "--key", str(identity.key)]
    with aggregator(tmp_path, f"mqtts://127.0.0.1:{fleet.port}", f"sqlite:///{tmp_path}/centre.db", files):
        yield


def device_of(home: Path, fleet, authority: Authority, name: str, certificate_of: str, ca: Path | None = None) -> Device:
    identity = authority.client(certificate_of)
    return make_device(
        home,
        f"mqtts://127.0.0.1:{fleet.port}",
        name,
        extra=[
            f'ca = "{ca or authority.ca}"',
            f'certificate = "{identity.cert}"',
            f'private_key = "{identity.key}"',
            "receipt_timeout_s = 1.0",
        ],
    )


def test_a_result_travels_over_tls_and_comes_back_as_a_receipt(tmp_path, fleet, authority, centre):
    device = device_of(tmp_path / "device", fleet, authority, "clinic-1", "clinic-1")
    device.start()
    try:
        small_picture(device.inbox / "a.png", 1)
        wait_for(lambda: device.waiting() == 0, "the receipt has come", 40)
        identity = authority.client("operator")
        url = f"mqtts://127.0.0.1:{fleet.port}"
        reply, _ = ping(Address.parse(url, authority.ca, identity.cert, identity.key), "clinic-1", 10)
        assert reply.ok
    finally:
        device.stop()


def test_a_device_under_another_devices_name_delivers_nothing_and_loses_nothing(tmp_path, fleet, authority, centre):
    device = device_of(tmp_path / "device", fleet, authority, "clinic-2", "clinic-1")
    device.start()
    try:
        small_picture(device.inbox / "a.png", 1)
        wait_for(
            lambda: "broker's ACL" in device.log.read_text() or "refused the connection" in device.log.read_text(), "it says so", 40
        )
        assert device.waiting() == 1
    finally:
        device.stop()


def test_a_broker_of_another_authority_is_not_trusted(tmp_path, fleet, authority):
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", "another authority")
    device = device_of(tmp_path / "device", fleet, authority, "clinic-1", "clinic-1", ca=other.ca)
    device.start()
    try:
        wait_for(lambda: "certificate verify failed" in device.log.read_text(), "it says why", 40)
        assert "Traceback" not in device.log.read_text()
    finally:
        device.stop()
