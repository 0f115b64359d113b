"""The sending end of the wire for tests of the centre: it publishes what it is given, and listens for receipts."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge.contract import codec, topics
from edge.contract.messages import AnyMessage, Receipt
from edge.contract.topics import Channel
from tests.support.messages import on_wire
from tests.support.processes import wait_for


class WireDevice:
    """A connected MQTT client under a device's name."""

    def __init__(self, name: str, port: int, tls: tuple[Path, Path, Path] | None = None) -> None:
        self.name = name
        self.receipts: list[Receipt] = []
        self.others: list[tuple[str, bytes]] = []
        self.answers: dict[int, str] = {}
        self.granted: list[str] = []
        self.connected = threading.Event()
        self.refused = ""
        self.disconnections = 0
        self.client = Client(CallbackAPIVersion.VERSION2, client_id=f"test-{name}", protocol=MQTTProtocolVersion.MQTTv5)
        if tls is not None:
            context = ssl.create_default_context(cafile=str(tls[0]))
            context.load_cert_chain(tls[1], tls[2])
            self.client.tls_set_context(context)
        self.client.max_inflight_messages_set(100)
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = self._on_disconnect
        self.client.on_message = self._on_message
        self.client.on_publish = lambda _c, _d, mid, reason, _p: self.answers.__setitem__(mid, str(reason))
        self.client.on_subscribe = lambda _c, _d, _m, reasons, _p: self.granted.extend(map(str, reasons))
        self.client.connect_async("127.0.0.1", port)
        self.client.loop_start()

    def send(self, message: AnyMessage, channel: Channel = Channel.RESULT, *, retain: bool = False) -> int:
        """Publish a message of the contract; return paho's message number."""
        return self.send_bytes(*on_wire(message, channel), retain=retain)

    def send_bytes(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Publish anything anywhere."""
        return self.client.publish(topic, payload, qos=1, retain=retain).mid

    def answer_to(self, mid: int) -> str:
        """Wait for the broker's answer to a publish, and return its reason."""
        wait_for(lambda: mid in self.answers, f"the broker answers publish {mid}")
        return self.answers[mid]

    def wait_receipt(self, through: int, epoch: str | None = None, timeout_s: float = 20.0) -> Receipt:
        """Wait until a receipt reaches `through`, and return it."""

        def found() -> Receipt | None:
            fitting = (one for one in list(self.receipts) if one.through >= through and epoch in {None, one.epoch})
            return next(fitting, None)

        wait_for(found, f"{self.name} gets a receipt through {through}; it has {self.receipts[-3:]}", timeout_s)
        receipt = found()
        assert receipt is not None
        return receipt

    def _on_connect(self, client: Client, _data: object, _flags: object, reason: object, _properties: object) -> None:
        if getattr(reason, "is_failure", False):
            self.refused = str(reason)
            return
        client.subscribe(topics.topic(self.name, Channel.RECEIPT), qos=1)
        self.connected.set()

    def _on_disconnect(self, *_arguments: object) -> None:
        self.connected.clear()
        self.disconnections += 1

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        if message.topic == topics.topic(self.name, Channel.RECEIPT):
            self.receipts.append(codec.decode_receipt(bytes(message.payload)))
        else:
            self.others.append((message.topic, bytes(message.payload)))


@contextlib.contextmanager
def wire_device(name: str, port: int, tls: tuple[Path, Path, Path] | None = None) -> Iterator[WireDevice]:
    """Connect a device and disconnect it at the end."""
    device = WireDevice(name, port, tls)
    try:
        wait_for(lambda: device.granted, f"{name} connects and subscribes ({device.refused})")
        yield device
    finally:
        device.client.disconnect()
        device.client.loop_stop()
