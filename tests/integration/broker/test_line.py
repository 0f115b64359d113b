"""From a device's publish to a committed row and back to its receipt, through a real Mosquitto and a real database."""

from __future__ import annotations

import json
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.database import parse_url
from broker.reader import Reader
from edge.contract import codec
from edge.contract.messages import Quarantined, Reply
from edge.contract.topics import Channel
from tests.support import messages
from tests.support.centre import aggregator
from tests.support.messages import EPOCH, OTHER_EPOCH
from tests.support.mosquitto import Mosquitto
from tests.support.postgres import Postgres
from tests.support.processes import end, wait_for
from tests.support.wire_device import WireDevice, wire_device


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/centre.db"
    make: Callable[[], str] = request.getfixturevalue("postgres_database")
    return make()


def stored(database: str, device: str = "dev-a", epoch: str = EPOCH) -> list[int]:
    """Every stored seq, as often as it is there."""
    rows = Reader(parse_url(database)).outcomes(device=device, limit=100_000)
    return sorted(row.seq for row in rows if row.epoch == epoch)


def spoilt(seq: int, **changes: object) -> bytes:
    return json.dumps(json.loads(codec.encode(messages.result(seq=seq))) | changes).encode()


def test_the_whole_line(mosquitto: Mosquitto, database: str, tmp_path: Path) -> None:
    with aggregator(tmp_path, mosquitto.url, database) as centre, wire_device("dev-a", mosquitto.port) as device:
        reader = Reader(parse_url(database))
        device.send(messages.hello(last=9), Channel.HELLO)
        answer = device.wait_receipt(0)
        assert (answer.answers, answer.through, answer.plus) == ("ab" * 8, 0, [])

        for seq in (1, 2, 4):  # a hole
            device.send(messages.result(seq=seq))
        assert device.wait_receipt(2).epoch == EPOCH
        wait_for(lambda: device.receipts[-1].plus == [(4, 4)], "the receipt names what lies beyond the hole")
        device.send(messages.result(seq=3))
        device.wait_receipt(4)

        before = len(device.receipts)
        device.send(messages.result(seq=2))  # a repeat is receipted again
        wait_for(lambda: len(device.receipts) > before, "a receipt for the repeat")
        device.send(messages.result(seq=2, label="normal"))  # a contradiction

        device.send_bytes("cxr/v1/dev-a/result", b"\xff not JSON")
        device.send_bytes("cxr/v1/dev-a/result", spoilt(5, schema=7))
        device.send_bytes("cxr/v1/dev-a/result", spoilt(6, label=7))
        device.send_bytes("cxr/v1/dev-a/result", spoilt(7, filler="x" * 9000))
        device.send_bytes("cxr/v1/dev-a/result", spoilt(1, device="dev-b"))
        with wire_device("dev-b", mosquitto.port) as huge:  # more than the broker takes
            huge.send_bytes("cxr/v1/dev-b/result", b"x" * 30_000)
            wait_for(lambda: huge.disconnections, "who sends too much is disconnected")
        device.send(messages.result(seq=8))
        device.wait_receipt(8)

        quarantined = {one.seq: one for receipt in device.receipts for one in receipt.quarantined}
        expected = [Quarantined(5, "unknown_schema"), Quarantined(6, "invalid"), Quarantined(7, "too_large")]
        assert list(quarantined.values()) == expected
        assert stored(database) == [1, 2, 3, 4, 8]
        assert stored(database, "dev-b") == []
        first = reader.outcome("dev-a", EPOCH, 2)
        assert first is not None
        assert first.outcome == messages.result(seq=2)
        reasons = sorted(row.reason for row in reader.quarantine())
        assert reasons == ["conflict", "identity_mismatch", "invalid", "not_json", "too_large", "unknown_schema"]

        device.send(messages.status(waiting=2), Channel.STATUS, retain=True)
        device.send(Reply(device="dev-a", id="ab" * 8, ok=True), Channel.REPLY)
        wait_for(lambda: reader.devices()[0].status is not None, "the status is stored")
        assert reader.devices()[0].status == messages.status(waiting=2)
        assert end(centre.process) == 0, centre.log.read_text()
    assert "Traceback" not in centre.log.read_text()


def test_killed_in_the_middle_nothing_is_lost_or_doubled(mosquitto: Mosquitto, database: str, tmp_path: Path) -> None:
    count = 3000
    with wire_device("dev-a", mosquitto.port) as device:
        with aggregator(tmp_path, mosquitto.url, database) as first:
            for seq in range(1, count + 1):
                device.send(messages.result(seq=seq))
            device.wait_receipt(300)
            end(first.process, signal.SIGKILL)
        promised = max(receipt.through for receipt in device.receipts)
        assert promised < count, "the kill came too late to test anything"
        kept = stored(database)
        assert kept[:promised] == list(range(1, promised + 1))
        # The broker keeps the messages for the aggregator's session: no device needs to send again.
        with aggregator(tmp_path, mosquitto.url, database) as second:
            device.wait_receipt(count, timeout_s=40)
            assert stored(database) == list(range(1, count + 1))
            assert Reader(parse_url(database)).totals().results == count
            assert end(second.process) == 0


def test_a_broker_that_loses_everything(mosquitto: Mosquitto, tmp_path: Path) -> None:
    database = str(tmp_path / "centre.db")
    with aggregator(tmp_path, mosquitto.url, database) as centre, wire_device("dev-a", mosquitto.port) as device:
        device.send(messages.result(seq=1))
        device.wait_receipt(1)
        mosquitto.kill()
        wait_for(lambda: centre.said("is lost"), "the aggregator notices")
        (mosquitto.configuration.parent / "mosquitto.db").unlink(missing_ok=True)
        mosquitto.start()
        wait_for(lambda: centre.log.read_text().count("Connected to") == 2, "the aggregator comes back", 40)
        assert device.connected.wait(40)
        for seq in (1, 2):  # a device sends again what has no receipt
            device.send(messages.result(seq=seq))
        device.wait_receipt(2)
        assert stored(database) == [1, 2]


def test_started_before_the_broker_it_says_so_once(mosquitto: Mosquitto, tmp_path: Path) -> None:
    mosquitto.stop()
    with aggregator(tmp_path, mosquitto.url, str(tmp_path / "centre.db"), connected=False) as centre:
        wait_for(lambda: centre.said("No broker answers"), "it says so")
        time.sleep(3)
        mosquitto.start()
        wait_for(lambda: centre.said("Connected to"), "it connects by itself", 40)
        assert centre.log.read_text().count("No broker answers") == 1
        assert end(centre.process) == 0


def test_a_postgresql_that_is_restarted(
    mosquitto: Mosquitto, postgres: Postgres, postgres_database: Callable[[], str], tmp_path: Path
) -> None:
    database = postgres_database()
    with aggregator(tmp_path, mosquitto.url, database) as centre, wire_device("dev-a", mosquitto.port) as device:
        device.send(messages.result(seq=1))
        device.wait_receipt(1)
        postgres.stop()
        try:
            for seq in range(2, 200):
                device.send(messages.result(seq=seq))
            wait_for(lambda: centre.said("does not take results"), "the aggregator says that the database is away")
            time.sleep(1)
            assert max(receipt.through for receipt in device.receipts) == 1
        finally:
            postgres.start()
        device.wait_receipt(199, timeout_s=40)
        assert centre.said("takes results again")
        assert stored(database) == list(range(1, 200))
        assert centre.log.read_text().count("does not take results") == 1


def test_a_full_disk(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """No file of the aggregator may grow past 64 KiB for a while: what SQLite sees is a write that fails."""
    database = str(tmp_path / "centre.db")
    with aggregator(tmp_path, mosquitto.url, database) as centre, wire_device("dev-a", mosquitto.port) as device:
        process = centre.process.pid
        unlimited = resource.prlimit(process, resource.RLIMIT_FSIZE)
        resource.prlimit(process, resource.RLIMIT_FSIZE, (64 * 1024, unlimited[1]))
        for seq in range(1, 401):
            device.send(messages.result(seq=seq))
        wait_for(lambda: centre.said("does not take results"), "the aggregator says that the database takes nothing")
        time.sleep(1)
        held = max((receipt.through for receipt in device.receipts), default=0)
        assert held < 400
        assert stored(database) == list(range(1, held + 1))
        resource.prlimit(process, resource.RLIMIT_FSIZE, unlimited)
        device.wait_receipt(400, timeout_s=40)
        assert stored(database) == list(range(1, 401))


def test_a_value_too_long_for_postgresql_holds_nobody_up(
    mosquitto: Mosquitto, postgres_database: Callable[[], str], tmp_path: Path
) -> None:
    database = postgres_database()
    too_long = "x" * 64 + "\n"  # the contract's pattern lets the line feed through
    with aggregator(tmp_path, mosquitto.url, database), wire_device("dev-a", mosquitto.port) as device:
        device.send(messages.result(seq=1))
        device.send_bytes("cxr/v1/dev-a/result", spoilt(2, facility=too_long))
        device.send(messages.result(seq=3))
        device.wait_receipt(3)
        assert stored(database) == [1, 3]
        assert [(odd.seq, odd.reason) for odd in Reader(parse_url(database)).quarantine()] == [(2, "invalid")]


def test_many_devices_at_once(mosquitto: Mosquitto, tmp_path: Path) -> None:
    database = str(tmp_path / "centre.db")
    devices: list[WireDevice] = []
    with aggregator(tmp_path, mosquitto.url, database):
        try:
            devices = [WireDevice(f"dev-{number}", mosquitto.port) for number in range(8)]
            for device in devices:
                wait_for(lambda device=device: device.granted, "the device subscribes")
            for seq in range(1, 101):
                for device in devices:
                    device.send(messages.result(device.name, seq))
                    device.send(messages.result(device.name, seq, OTHER_EPOCH))
            for device in devices:
                device.wait_receipt(100, EPOCH)
                device.wait_receipt(100, OTHER_EPOCH)
                assert all(receipt.device == device.name for receipt in device.receipts)
        finally:
            for device in devices:
                device.client.disconnect()
                device.client.loop_stop()
    assert Reader(parse_url(database)).totals().results == 1600
