"""Certificates that renew themselves, over the real broker and over HTTPS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.clinic import small_picture
from tests.support.fleet import Fleet, make_fleet, run
from tests.support.processes import wait_for


def standing(fleet: Fleet, device: str) -> dict[str, Any]:
    rows = [json.loads(line) for line in run("fleet", "--dir", fleet.dir, "--json").splitlines()]
    [row] = [row for row in rows if row["device"] == device]
    return row


def test_the_key_of_the_file_is_replaced_at_the_first_contact(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path)
    fleet.enroll("clinic-1", "--facility", "Clinic 1")
    device = fleet.device("clinic-1")
    pem = device.state / "identity" / "device.pem"
    first = pem.read_bytes()
    with fleet.mosquitto() as broker, fleet.aggregator():
        assert standing(fleet, "clinic-1")["standing"] == "waiting"
        device.start()
        try:
            wait_for(lambda: pem.read_bytes() != first, "the device has a key of its own", 30)
            wait_for(lambda: standing(fleet, "clinic-1")["standing"] == "ok", "the centre knows", 20)
            small_picture(device.inbox / "a.png", 1)
            wait_for(lambda: device.waiting() == 0, "the receipt has come", 40)
            print(device.log.read_text(), broker.log.read_text()[-2000:])
        finally:
            device.stop()
