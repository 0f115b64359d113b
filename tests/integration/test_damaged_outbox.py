"""The whole line with an outbox that was damaged while the centre was away: every picture arrives once, also those from before."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from contextlib import closing

from edge.contract.codec import decode_outcome
from tests.support.centre import aggregator
from tests.support.clinic import make_device, small_picture
from tests.support.mosquitto import loopback_mosquitto
from tests.support.processes import wait_for

BEFORE, AFTER = 5, 3


def test_a_device_rebuilds_its_outbox_and_delivers_old_and_new(tmp_path):
    with loopback_mosquitto(tmp_path / "mosquitto") as broker:
        device = make_device(tmp_path / "device", broker.url, extra=["receipt_timeout_s = 1.0", "status_every_s = 1.0"])
        device.start()
        try:
            put_in(device, tmp_path, range(BEFORE))
            device.stop()
            with (device.state / "outbox.db").open("r+b") as file:
                file.write(os.urandom(4096))
            device.start()
            wait_for(lambda: list(device.state.glob("outbox-damaged-*.db")), "the damaged outbox is put aside", 60)
            put_in(device, tmp_path, range(BEFORE, BEFORE + AFTER))
            with aggregator(tmp_path, broker.url, f"sqlite:///{tmp_path}/centre.db"):
                wait_for(lambda: device.waiting() == 0, "everything has its receipt", 60)
                wait_for(lambda: (BEFORE, BEFORE, 1) in streams(tmp_path), "the centre knows that the old epoch is closed")
        finally:
            device.stop()
    with closing(sqlite3.connect(tmp_path / "centre.db")) as centre:
        payloads = [row[0] for row in centre.execute("SELECT payload FROM outcomes")]
    outcomes = [decode_outcome(payload) for payload in payloads]
    assert sorted(Counter(outcome.epoch for outcome in outcomes).values()) == [AFTER, BEFORE]
    assert len({outcome.source_key for outcome in outcomes}) == BEFORE + AFTER
    assert streams(tmp_path) == [(BEFORE, BEFORE, 1), (AFTER, AFTER, 0)]
    said = device.log.read_text()
    assert "file is not a database" in said
    assert "What can be read is put into a new one" in said
    assert f"{BEFORE} outcomes were saved, of {BEFORE} that were ever recorded" in said


def streams(folder):
    with closing(sqlite3.connect(folder / "centre.db")) as centre:
        return centre.execute("SELECT last_seq, through, closed FROM streams ORDER BY last_seq DESC").fetchall()


def put_in(device, folder, numbers):
    for number in numbers:
        path = small_picture(folder / f"picture-{number}.png", number)
        os.rename(path, device.inbox / path.name)
    wait_for(lambda: device.waiting() == numbers.stop, f"{numbers.stop} outcomes wait", 60)
