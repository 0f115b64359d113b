"""The link to a broker against brokers that break the protocol: it ends the connection and nothing else."""

import gc
import random
import struct
import time

import pytest

from edge.config import Relay
from edge.delivery.mqtt import MAX_PACKET, Closed, Connected, Message, PahoLink
from tests.support.mosquitto import loopback_mosquitto
from tests.support.processes import wait_for
from tests.support.raw import raw_server

CONNACK = bytes([0x20, 3, 0, 0, 0])

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)  # paho closes late


@pytest.fixture(autouse=True)
def collected():
    yield
    gc.collect()


def length(count):
    coded = b""
    while True:
        count, low = divmod(count, 128)
        coded += bytes([low | (128 if count else 0)])
        if not count:
            return coded


def publish(topic, payload, said=None):
    body = struct.pack(">H", len(topic)) + topic + b"\0" + payload
    return b"\x30" + length(said or len(body)) + body


def broker(*packets, stays=True):
    def behave(near):
        near.recv(65536)
        near.sendall(CONNACK)
        for packet in packets:
            near.sendall(packet)
        while stays and near.recv(65536):
            pass

    return behave


def events(port, until, within_s=10.0):
    """Connect and return what happened up to the first event of the type `until`."""
    link = PahoLink(Relay(url=f"mqtt://127.0.0.1:{port}"), "clinic-1", "cxr/v1/clinic-1/status", b"{}")
    happened, deadline = [], time.monotonic() + within_s
    while not any(isinstance(event, until) for event in happened):
        assert time.monotonic() < deadline, happened
        found = link.poll(0.05)
        happened += found
        found.clear()
    link.close()
    return happened


def test_a_topic_that_is_not_utf8_is_none_of_ours():
    with raw_server(broker(publish(b"\xff\xfe", b"x"), publish(b"cxr/v1/clinic-1/else", b"y"))) as port:
        happened = events(port, Message)
        assert happened[:2] == [Connected(), Message("", b"x")]


def test_a_packet_that_is_larger_than_allowed_is_not_collected():
    sent = 0

    def behave(near):
        nonlocal sent
        near.recv(65536)
        near.sendall(CONNACK + publish(b"cxr/v1/clinic-1/receipt", b"", said=200 << 20))
        near.settimeout(5.0)
        while sent < 200 << 20:
            near.sendall(b"x" * 65536)
            sent += 65536

    with raw_server(behave) as port:
        happened = events(port, Closed)
        assert happened[-1].why == "the broker sends what is no MQTT for this device (PacketTooLarge)"
    assert sent < 50 << 20, "the rest of it was not taken from the wire"


def test_the_largest_packet_that_is_allowed_is_read():
    payload = b"x" * (MAX_PACKET - 30)
    with raw_server(broker(publish(b"cxr/v1/clinic-1/receipt", payload))) as port:
        assert events(port, Message)[-1].payload == payload


def test_a_broker_is_told_what_it_may_send(tmp_path):
    with loopback_mosquitto(tmp_path) as mosquitto:
        link = PahoLink(Relay(url=mosquitto.url), "clinic-1", "cxr/v1/clinic-1/status", b"{}")
        other = PahoLink(Relay(url=mosquitto.url), "centre", "cxr/v1/centre/status", b"{}")
        got = []

        def settled():
            other.poll(0.02).clear()
            found = link.poll(0.02)
            got.extend(event for event in found if not isinstance(event, Connected))
            found.clear()
            return got

        link.poll(0.1)
        link.subscribe(["cxr/v1/clinic-1/receipt"])
        for _ in range(10):
            settled()
        other.publish("cxr/v1/clinic-1/receipt", b"x" * (MAX_PACKET + 1))
        for number in range(3):
            other.publish("cxr/v1/clinic-1/receipt", b"%d" % number)
        wait_for(lambda: len(settled()) >= 3, "the messages behind it arrive")
        assert got == [Message("cxr/v1/clinic-1/receipt", b"%d" % number) for number in range(3)]
        link.close()
        other.close()


@pytest.mark.parametrize("seed", range(40))
def test_bytes_that_are_no_mqtt_end_the_connection_and_raise_nothing(seed):
    rng = random.Random(seed)
    kinds = [0x20, 0x30, 0x32, 0x34, 0x40, 0x50, 0x62, 0x70, 0x90, 0xB0, 0xD0, 0xE0, 0xF0, 0x00]
    packets = []
    for _ in range(30):
        body = bytes(rng.choice([0, 1, 3, 31, 38, 255, rng.randrange(256)]) for _ in range(rng.randrange(12)))
        packets.append(bytes([rng.choice(kinds) | rng.choice([0, 0, rng.randrange(16)])]) + length(len(body)) + body)
    with raw_server(broker(*packets, stays=False)) as port:
        assert isinstance(events(port, Closed)[-1], Closed)
