"""From nothing to a result at the centre, with the commands that people use and the real Mosquitto."""

from __future__ import annotations

from pathlib import Path

from tests.support.clinic import small_picture
from tests.support.fleet import make_fleet, run
from tests.support.processes import wait_for


def test_an_enrolled_device_delivers(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path)
    fleet.enroll("clinic-1", "--facility", "Clinic 1")
    device = fleet.device("clinic-1")
    with fleet.mosquitto(), fleet.aggregator():
        device.start()
        try:
            small_picture(device.inbox / "a.png", 1)
            wait_for(lambda: device.waiting() == 0, "the receipt has come", 40)
            print(run("ping", "clinic-1", "--authority", fleet.dir))
        finally:
            device.stop()


def test_revoke(tmp_path: Path) -> None:
    import time

    fleet = make_fleet(tmp_path)
    fleet.enroll("clinic-1", "--facility", "Clinic 1")
    device = fleet.device("clinic-1")
    with fleet.mosquitto(), fleet.aggregator():
        device.start()
        try:
            small_picture(device.inbox / "a.png", 1)
            wait_for(lambda: device.waiting() == 0, "the receipt has come", 40)
            t = time.monotonic()
            print(run("revoke", "clinic-1", "--dir", fleet.dir), time.monotonic() - t)
            time.sleep(5)
            print(run("fleet", "--dir", fleet.dir))
            print(device.log.read_text()[-3000:])
            print((fleet.folder / "mosquitto.log").read_text()[-3000:])
        finally:
            device.stop()
