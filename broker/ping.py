"""One command to one device, and its answer: is the whole way there and back open?"""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass, field

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from broker.errors import LinkError
from broker.mqtt import Address, new_client
from edge.contract import codec, topics
from edge.contract.errors import ContractError
from edge.contract.messages import Command, Reply
from edge.contract.topics import Channel


@dataclass(slots=True)
class _Exchange:
    id: str
    subscribed: threading.Event = field(default_factory=threading.Event)
    answered: threading.Event = field(default_factory=threading.Event)
    refused: str = ""
    reply: Reply | None = None


def ping(address: Address, device: str, timeout_s: float) -> tuple[Reply, float]:
    """Send `ping` to `device`; return its reply and the seconds that it took.

    Raises:
        LinkError: if the name is no device name, the broker does not answer or forbids it, or no reply comes in `timeout_s`.
    """
    try:
        command_topic, reply_topic = topics.topic(device, Channel.COMMAND), topics.topic(device, Channel.REPLY)
    except ContractError as error:
        raise LinkError(f"{error.detail}.") from None
    exchange = _Exchange(secrets.token_hex(16))
    client = new_client(address, f"cxr-ping-{exchange.id[:12]}")
    client.suppress_exceptions = True
    _listen(client, exchange, reply_topic)
    until = time.monotonic() + timeout_s
    try:
        client.connect(address.host, address.port)
    except (OSError, ValueError) as error:
        raise LinkError(f"No broker answers at {address} ({error}); start it or check the address.") from None
    client.loop_start()
    try:
        if not exchange.subscribed.wait(timeout_s):
            raise LinkError(f"The broker at {address} did not accept the connection in {timeout_s:g} s.")
        if exchange.refused:
            raise LinkError(f"The broker at {address} does not allow this: {exchange.refused}. Use the operator's certificate.")
        sent = time.monotonic()
        client.publish(command_topic, codec.encode(Command(device=device, id=exchange.id, verb="ping")), qos=1)
        if not exchange.answered.wait(max(until - sent, 0.0)) or exchange.reply is None:
            raise LinkError(f"{device} did not answer in {timeout_s:g} s; it is off, offline, or not allowed to read commands.")
        return exchange.reply, time.monotonic() - sent
    finally:
        client.disconnect()
        client.loop_stop()


def _listen(client: Client, exchange: _Exchange, reply_topic: str) -> None:
    def on_connect(_client: Client, _data: object, _flags: object, reason: ReasonCode, _properties: object) -> None:
        if reason.is_failure:
            exchange.refused = str(reason)
            exchange.subscribed.set()
        else:
            client.subscribe(reply_topic, qos=1)

    def on_subscribe(_client: Client, _data: object, _mid: int, reasons: list[ReasonCode], _properties: Properties) -> None:
        exchange.refused = next((str(reason) for reason in reasons if reason.is_failure), "")
        exchange.subscribed.set()

    def on_message(_client: Client, _data: object, message: MQTTMessage) -> None:
        try:
            reply = codec.decode_reply(bytes(message.payload))
        except ContractError:
            return  # the aggregator quarantines it
        if reply.id == exchange.id:
            exchange.reply = reply
            exchange.answered.set()

    client.on_connect, client.on_message = on_connect, on_message
    client.on_subscribe = on_subscribe
