"""`fleet.conf` and `fleet.acl` in a real Mosquitto, with a certificate authority of the test's own."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from broker.database import parse_url
from broker.errors import LinkError
from broker.mqtt import Address
from broker.ping import ping
from broker.reader import Reader
from edge.contract import codec
from edge.contract.messages import Reply
from edge.contract.topics import Channel
from tests.support import messages
from tests.support.authority import Authority
from tests.support.centre import aggregator
from tests.support.messages import on_wire
from tests.support.mosquitto import Mosquitto, fleet_mosquitto
from tests.support.processes import wait_for
from tests.support.wire_device import WireDevice, wire_device

DENIED = "Not authorized"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Mosquitto]:
    with fleet_mosquitto(tmp_path_factory.mktemp("fleet"), authority) as broker:
        yield broker


def files(authority: Authority, name: str) -> tuple[Path, Path, Path]:
    identity = authority.client(name)
    return authority.ca, identity.cert, identity.key


def address(fleet: Mosquitto, authority: Authority, name: str) -> Address:
    return Address.parse(f"mqtts://127.0.0.1:{fleet.port}", *files(authority, name))


def heard(device: WireDevice, wait_s: float = 0.5) -> list[str]:
    time.sleep(wait_s)
    return [topic for topic, _ in device.others]


def test_a_device_writes_under_its_own_name_only(fleet: Mosquitto, authority: Authority) -> None:
    with wire_device("dev-a", fleet.port, files(authority, "dev-a")) as device:
        for channel in ("result", "status", "hello", "reply"):
            assert device.answer_to(device.send_bytes(f"cxr/v1/dev-a/{channel}", b"{}")) != DENIED
            assert device.answer_to(device.send_bytes(f"cxr/v1/dev-b/{channel}", b"{}")) == DENIED
        for topic in (
            "cxr/v1/dev-a/receipt",
            "cxr/v1/dev-a/command",
            "cxr/v1/dev-b/receipt",
            "cxr/v1/dev-a/other",
            "x",
            "cxr/v1/dev-a",
        ):
            assert device.answer_to(device.send_bytes(topic, b"{}")) == DENIED


def test_a_device_reads_its_own_receipts_and_commands_only(fleet: Mosquitto, authority: Authority) -> None:
    with (
        wire_device("dev-a", fleet.port, files(authority, "dev-a")) as device,
        wire_device("aggregator", fleet.port, files(authority, "aggregator")) as centre,
    ):
        device.client.subscribe([("cxr/v1/+/receipt", 1), ("cxr/v1/+/command", 1), ("#", 1)])
        wait_for(lambda: len(device.granted) == 4, "the broker answers the subscriptions")
        receipt = codec.encode(messages.hello())  # any bytes will do
        for topic in ("cxr/v1/dev-b/receipt", "cxr/v1/dev-b/command", "cxr/v1/dev-a/command"):
            centre.answer_to(centre.send_bytes(topic, receipt))
        assert set(heard(device)) == {"cxr/v1/dev-a/command"}


def test_a_dashboard_reads_status_and_nothing_else(fleet: Mosquitto, authority: Authority) -> None:
    with (
        wire_device("dev-a", fleet.port, files(authority, "dev-a")) as device,
        wire_device("dashboard", fleet.port, files(authority, "dashboard")) as dashboard,
    ):
        dashboard.client.subscribe("cxr/v1/#", 1)
        wait_for(lambda: len(dashboard.granted) == 2, "the broker answers the subscription")
        device.answer_to(device.send(messages.result("dev-a", 1)))
        device.answer_to(device.send(messages.hello("dev-a"), Channel.HELLO))
        device.answer_to(device.send(messages.status("dev-a"), Channel.STATUS, retain=True))
        assert set(heard(dashboard)) == {"cxr/v1/dev-a/status"}
        for topic in ("cxr/v1/dev-a/status", "cxr/v1/dev-a/command", "cxr/v1/dev-a/receipt"):
            assert dashboard.answer_to(dashboard.send_bytes(topic, b"{}")) == DENIED


@pytest.mark.parametrize("name", ["aggregator", "operator", "dashboard"])
def test_who_is_no_device_sends_no_results_under_its_own_name(fleet: Mosquitto, authority: Authority, name: str) -> None:
    with wire_device(name, fleet.port, files(authority, name)) as client:
        for channel in ("result", "status", "hello", "reply"):
            assert client.answer_to(client.send_bytes(f"cxr/v1/{name}/{channel}", b"{}")) == DENIED


def connects(fleet: Mosquitto, context: ssl.SSLContext | None, user: str | None = None) -> bool:
    """Whether a client with this TLS context is let in."""
    answers: list[bool] = []
    client = Client(CallbackAPIVersion.VERSION2, client_id="stranger", protocol=MQTTProtocolVersion.MQTTv5)
    if context is not None:
        client.tls_set_context(context)
    if user is not None:
        client.username_pw_set(user, "secret")
    client.on_connect = lambda _c, _d, _f, reason, _p: answers.append(not reason.is_failure)
    client.on_disconnect = lambda *_: answers.append(False)
    client.on_connect_fail = lambda *_: answers.append(False)
    client.connect_async("127.0.0.1", fleet.port)
    client.loop_start()
    try:
        wait_for(lambda: answers, "the broker answers or hangs up")
    finally:
        client.disconnect()
        client.loop_stop()
    return answers[0]


def test_strangers_are_refused(fleet: Mosquitto, authority: Authority, tmp_path: Path) -> None:
    nobody = ssl.create_default_context(cafile=str(authority.ca))
    known = ssl.create_default_context(cafile=str(authority.ca))
    known.load_cert_chain(*files(authority, "dev-a")[1:])
    other = Authority(tmp_path / "other")
    forged = ssl.create_default_context(cafile=str(authority.ca))
    forged.load_cert_chain(*files(other, "dev-a")[1:])
    assert connects(fleet, known)
    assert not connects(fleet, None)
    assert not connects(fleet, nobody)
    assert not connects(fleet, nobody, user="dev-a")
    assert not connects(fleet, forged)


def test_a_user_name_does_not_change_who_one_is(fleet: Mosquitto, authority: Authority) -> None:
    with wire_device("dev-a", fleet.port, files(authority, "dev-a")) as device:
        device.client.username_pw_set("aggregator", "secret")
        device.client.reconnect()
        wait_for(lambda: device.connected.is_set() and len(device.granted) > 1, "the device comes back")
        assert device.answer_to(device.send_bytes("cxr/v1/dev-b/receipt", b"{}")) == DENIED


def test_the_line_over_tls(fleet: Mosquitto, authority: Authority, tmp_path: Path) -> None:
    ca, cert, key = files(authority, "aggregator")
    database = str(tmp_path / "centre.db")
    more = ["--ca", str(ca), "--cert", str(cert), "--key", str(key)]
    with aggregator(tmp_path, f"mqtts://127.0.0.1:{fleet.port}", database, more) as centre:
        with wire_device("dev-a", fleet.port, files(authority, "dev-a")) as device:
            for seq in (1, 2, 3):
                device.send(messages.result("dev-a", seq))
            assert device.wait_receipt(3).through == 3
            # Another device's outcome, which the broker itself would let through under the own name.
            device.send_bytes("cxr/v1/dev-a/result", on_wire(messages.result("dev-b", 1))[1])
            reader = Reader(parse_url(database))
            wait_for(lambda: any(odd.reason == "identity_mismatch" for odd in reader.quarantine()), "it is quarantined")
            assert reader.outcomes(device="dev-b") == []
        assert not centre.said("refuses"), centre.log.read_text()


def test_ping_there_and_back(fleet: Mosquitto, authority: Authority) -> None:
    with wire_device("dev-p", fleet.port, files(authority, "dev-p")) as device:

        def answer(_client: object, _data: object, message: object) -> None:
            command = codec.decode_command(bytes(message.payload))  # type: ignore[attr-defined]
            assert command.verb == "ping"
            device.send(Reply(device="dev-p", id="ff" * 8, ok=False), Channel.REPLY)  # somebody else's answer
            device.send_bytes("cxr/v1/dev-p/reply", b"no reply at all")
            device.send(Reply(device="dev-p", id=command.id, ok=True, detail="0.1.0"), Channel.REPLY)

        device.client.message_callback_add("cxr/v1/dev-p/command", answer)
        device.client.subscribe("cxr/v1/dev-p/command", 1)
        wait_for(lambda: len(device.granted) == 2, "the device listens for commands")
        reply, seconds = ping(address(fleet, authority, "operator"), "dev-p", 10)
        assert (reply.ok, reply.detail) == (True, "0.1.0")
        assert 0 < seconds < 10


def test_ping_a_device_that_is_away(fleet: Mosquitto, authority: Authority) -> None:
    with pytest.raises(LinkError, match=r"did not answer in 0\.5 s"):
        ping(address(fleet, authority, "operator"), "dev-q", 0.5)


def test_ping_with_a_certificate_of_somebody_else(fleet: Mosquitto, authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "other").client("aggregator")
    wrong = Address.parse(f"mqtts://127.0.0.1:{fleet.port}", authority.ca, stranger.cert, stranger.key)
    with pytest.raises(LinkError, match=r"No broker answers|did not accept"):
        ping(wrong, "dev-p", 2)
