"""The aggregator's link over paho-mqtt: MQTT 5, a session that outlives the connection, acknowledgement by hand.

paho's network thread only moves messages into a queue. Its callbacks never raise; what goes wrong in one is logged.
"""

from __future__ import annotations

import logging
import queue
import random
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from broker.aggregate import Delivery
from broker.errors import LinkError
from broker.ingest import Inbound
from edge.contract.topics import Channel, every_device

log = logging.getLogger(__name__)
_paho_log = logging.getLogger(f"{__name__}.paho")

WINDOW = 1000
"""Unacknowledged messages that the broker may send at a time: two batches, one at work and one on its way."""

MAX_PACKET = 32 * 1024
"""Bytes of the largest packet that the broker may send: more than it takes from a device, for the quarantine's sake."""

SESSION_EXPIRY_S = 30 * 24 * 3600
"""How long the broker keeps messages for an aggregator that is away."""

_KEEPALIVE_S = 12
"""A link that carries nothing any more is noticed after at most twice as many seconds."""

_UNACKNOWLEDGED_KINDS_LIMIT = 5 * WINDOW
_NO_SUBSCRIBER = 0x10
_LONGEST_PAUSE_S = 30


@dataclass(frozen=True, slots=True)
class Address:
    """Where the broker is and how to speak to it. With `ca`, `cert` and `key` the connection is mutual TLS."""

    host: str
    port: int
    tls: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    @classmethod
    def parse(cls, url: str, ca: Path | None = None, cert: Path | None = None, key: Path | None = None) -> Address:
        """Read `mqtt://host:port` or `mqtts://host:port`; the ports default to 1883 and 8883.

        Raises:
            LinkError: if `url` is neither, or the certificate files do not fit to it.
        """
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = 0
        if parts.scheme not in {"mqtt", "mqtts"} or not parts.hostname or port == 0 or parts.path.strip("/"):
            raise LinkError(f"{url!r} is no broker address; write mqtt://127.0.0.1:1883 or mqtts://broker.example:8883.")
        tls = parts.scheme == "mqtts"
        if not tls and (ca or cert or key):
            raise LinkError("Certificates are of use with mqtts:// only; change the address or leave --ca, --cert and --key out.")
        if (cert is None) != (key is None):
            raise LinkError("--cert and --key belong together; give both.")
        return cls(parts.hostname, port or (8883 if tls else 1883), tls, ca, cert, key)

    def __str__(self) -> str:
        return f"{'mqtts' if self.tls else 'mqtt'}://{self.host}:{self.port}"


def new_client(address: Address, client_id: str, *, manual_ack: bool = False) -> Client:
    """Return a paho client for MQTT 5 that is not connected yet.

    Raises:
        LinkError: if the certificate files cannot be read.
    """
    client = Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTProtocolVersion.MQTTv5, manual_ack=manual_ack)
    if address.tls:
        try:
            context = ssl.create_default_context(cafile=str(address.ca) if address.ca else None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if address.cert is not None:
                context.load_cert_chain(address.cert, address.key)
        except (OSError, ssl.SSLError) as error:
            raise LinkError(f"The certificates cannot be used ({error}); check --ca, --cert and --key.") from None
        client.tls_set_context(context)
    return client


class PahoLink:
    """A `Link` that connects in the background and reconnects for ever, saying once what is wrong."""

    def __init__(self, address: Address, client_id: str = "cxr-aggregator") -> None:
        self._address = address
        self._inbox: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
        self._session = 0
        self._connected = threading.Event()
        self._complaint = ""
        self._failures = 0
        self._client = client = new_client(address, client_id, manual_ack=True)
        client.suppress_exceptions = True  # an error in a callback must not end the network thread silently
        client.enable_logger(_paho_log)
        client.max_inflight_messages_set(100)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish

    def start(self) -> None:
        """Begin to connect; returns at once."""
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho leaves it untyped
        properties.SessionExpiryInterval = SESSION_EXPIRY_S
        properties.ReceiveMaximum = WINDOW
        properties.MaximumPacketSize = MAX_PACKET
        self._client.connect_async(self._address.host, self._address.port, _KEEPALIVE_S, clean_start=False, properties=properties)
        self._client.loop_start()

    def close(self) -> None:
        """Send what is still to be acknowledged, and disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def receive(self, limit: int, linger_s: float, timeout_s: float) -> list[Delivery]:
        """See `Link.receive`."""
        batch: list[Delivery] = []
        until = time.monotonic() + timeout_s
        try:
            while len(batch) < limit:
                if batch and not self._inbox.empty():
                    batch.append(self._inbox.get_nowait())
                    continue
                batch.append(self._inbox.get(timeout=max(until - time.monotonic(), 0.0)))
                if len(batch) == 1:
                    until = time.monotonic() + linger_s
        except queue.Empty:
            pass
        return batch

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """See `Link.acknowledge`."""
        for delivery in deliveries:
            # A message number means another message after a reconnection.
            if delivery.session == self._session:
                self._client.ack(delivery.mid, delivery.qos)

    def publish(self, topic: str, payload: bytes) -> None:
        """See `Link.publish`."""
        if self._connected.is_set():
            self._client.publish(topic, payload, qos=1)

    def _on_connect(
        self, client: Client, _data: object, _flags: ConnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if reason.is_failure:
            self._complain(f"The broker at {self._address} refuses this aggregator: {reason}. Check its user, certificate and ACL.")
            return
        self._session += 1
        self._complaint, self._failures = "", 0
        options = SubscribeOptions(qos=1)
        client.subscribe(
            [(every_device(channel), options) for channel in (Channel.RESULT, Channel.STATUS, Channel.HELLO, Channel.REPLY)]
        )
        self._connected.set()
        log.info("Connected to %s.", self._address)

    def _on_connect_fail(self, _client: Client, _data: object) -> None:
        self._complain(f"No broker answers at {self._address}; start it or check the address. Trying again until it does.")
        self._back_off()

    def _on_disconnect(
        self, _client: Client, _data: object, flags: DisconnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if self._connected.is_set() and reason.is_failure:
            log.warning("The connection to %s is lost: %s.", self._address, reason)
        self._connected.clear()
        self._session += 1
        self._back_off()

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        if message.qos == 0 and self._inbox.qsize() > _UNACKNOWLEDGED_KINDS_LIMIT:
            return  # nothing that matters comes with QoS 0, and nothing else bounds it
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""  # no topic of ours: quarantined as such
        inbound = Inbound(topic, bytes(message.payload), time.time_ns() // 1_000_000, message.retain)
        self._inbox.put(Delivery(inbound, message.mid, message.qos, self._session))

    def _on_publish(self, _client: Client, _data: object, _mid: int, reason: ReasonCode, _properties: Properties) -> None:
        if reason.is_failure:
            self._complain(
                f"The broker at {self._address} does not take receipts: {reason}. Check the aggregator's rules in its ACL."
            )

    def _back_off(self) -> None:
        self._failures += 1
        pause = random.randint(1, min(2**self._failures, _LONGEST_PAUSE_S))  # jitter, not a secret
        self._client.reconnect_delay_set(pause, pause)

    def _complain(self, sentence: str) -> None:
        if sentence != self._complaint:
            self._complaint = sentence
            log.error(sentence)


def _is_callback_error(record: logging.LogRecord) -> bool:
    """Everything else that paho has to say is said above, once and in a sentence."""
    return str(record.msg).startswith("Caught exception")


_paho_log.addFilter(_is_callback_error)
