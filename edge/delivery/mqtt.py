"""paho-mqtt behind a small seam: one connection, driven by the caller's own loop, events instead of callbacks.

paho keeps nothing on disk and sends its backlog again on its own after a reconnection. So a `Link` lives for one connection
only, holds no more than the caller's window, and everything that must not be lost stays in the outbox.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge.config import Relay
from edge.contract.messages import MAX_BYTES
from edge.delivery.tls import client_context
from edge.errors import CxrError

NO_SUBSCRIBER = 0x10
"""PUBACK reason: the broker took the message and nobody was there for it, so it went nowhere."""

KEEPALIVE_S = 12
"""Silence after which the other end is asked for a sign of life; without one as long again, the connection is given up."""


MAX_PACKET = 2 * MAX_BYTES
"""Bytes of the largest packet that a broker may send us: a message of the contract, its topic, and room."""


class Connected(NamedTuple):
    """The broker has accepted us."""


class Closed(NamedTuple):
    """The connection is over; `why` is for people."""

    why: str


class Acked(NamedTuple):
    """The broker answered a publish; `code` is the MQTT 5 reason code."""

    mid: int
    code: int
    name: str


class Message(NamedTuple):
    """Something came in."""

    topic: str
    payload: bytes


Event = Connected | Closed | Acked | Message


class Link(Protocol):
    """One connection to a broker."""

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Hand over one QoS 1 message; return its id, which comes back in `Acked`."""
        ...

    def subscribe(self, topics: list[str]) -> None:
        """Ask for topics with QoS 1."""
        ...

    def poll(self, timeout_s: float) -> deque[Event]:
        """Read and write what is there, wait at most `timeout_s` seconds, return what happened (empty it)."""
        ...

    def close(self) -> None:
        """End the connection without leaving the last will."""
        ...


class PacketTooLarge(Exception):
    """The broker sends a packet that is larger than it was told it may be."""


class _Client(paho.Client):
    """paho, which would collect a packet of any length in memory, with a bound on it."""

    def _sock_recv(self, bufsize: int) -> bytes:
        if bufsize > MAX_PACKET:  # paho asks for all that is missing of a packet
            raise PacketTooLarge
        return super()._sock_recv(bufsize)


class PahoLink:
    """A `Link` over TCP or TLS, MQTT 5, clean start."""

    def __init__(self, settings: Relay, client_id: str, will_topic: str, will: bytes, keepalive_s: int = KEEPALIVE_S) -> None:
        """Connect; an empty `will_topic` leaves no last will.

        Raises:
            CxrError: if the broker cannot be reached or a TLS file cannot be used; the text says which.
        """
        url = urlsplit(settings.url)
        secure = url.scheme == "mqtts"
        self._events: deque[Event] = deque()
        self._client = _Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5)
        self._client.max_inflight_messages_set(0)  # the caller's window is the limit
        self._client.suppress_exceptions = False
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        self._client.on_message = self._on_message
        if will_topic:
            self._client.will_set(will_topic, will, qos=1, retain=True)
        self._client.connect_timeout = 10.0
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho leaves it untyped
        properties.SessionExpiryInterval = 0
        properties.ReceiveMaximum = 100
        properties.MaximumPacketSize = MAX_PACKET
        try:
            if secure:
                self._client.tls_set_context(client_context(settings))
            self._client.connect(
                url.hostname or "", url.port or (8883 if secure else 1883), keepalive_s, clean_start=True, properties=properties
            )
        except OSError as error:
            raise CxrError(f"The broker {url.hostname}:{url.port or ''} cannot be reached: {error}") from None

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """See `Link.publish`."""
        return self._client.publish(topic, payload, qos=1, retain=retain).mid

    def subscribe(self, topics: list[str]) -> None:
        """See `Link.subscribe`."""
        self._client.subscribe([(topic, SubscribeOptions(qos=1)) for topic in topics])

    def poll(self, timeout_s: float) -> deque[Event]:
        """See `Link.poll`."""
        try:
            code = self._client.loop(timeout_s)
        except Exception as error:  # paho before 2.2 raises whatever Python raises in a broken packet
            if (connection := self._client.socket()) is not None:
                connection.close()
            self._events.append(Closed(f"the broker sends what is no MQTT for this device ({type(error).__name__})"))
            return self._events
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS and not any(isinstance(event, Closed) for event in self._events):
            self._events.append(Closed(paho.error_string(code)))
        return self._events

    def close(self) -> None:
        """See `Link.close`."""
        self._client.disconnect()
        self._client.loop(0.1)

    def _on_connect(self, client: Any, userdata: Any, flags: Any, code: ReasonCode, properties: Any) -> None:
        if code.is_failure:
            self._events.append(Closed(f"the broker refused the connection: {code}"))
        else:
            self._events.append(Connected())

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, code: ReasonCode, properties: Any) -> None:
        self._events.append(Closed(str(code)))

    def _on_publish(self, client: Any, userdata: Any, mid: int, code: ReasonCode, properties: Any) -> None:
        self._events.append(Acked(mid, code.value, "" if code.value == 0 else str(code)))

    def _on_message(self, client: Any, userdata: Any, message: paho.MQTTMessage) -> None:
        try:
            name = message.topic
        except UnicodeDecodeError:
            name = ""  # no topic of ours
        self._events.append(Message(name, bytes(message.payload)))


def try_connection(settings: Relay, client_id: str) -> str | None:
    """Return why the broker does not take a connection of this device, None if it does; at most ten seconds for its answer."""
    try:
        link = PahoLink(settings, client_id, "", b"")
    except CxrError as error:
        return str(error)
    until = time.monotonic() + 10.0
    while time.monotonic() < until:
        events = link.poll(0.1)
        while events:
            event = events.popleft()
            if isinstance(event, Connected):
                link.close()
                return None
            if isinstance(event, Closed):
                return event.why
    return "the broker did not answer the connection request"
