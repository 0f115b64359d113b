"""paho alone with a sliding window: the least that sending can cost."""

from __future__ import annotations

import time
from collections.abc import Sequence

import paho.mqtt.client as paho


def publish_all(url: str, topic: str, payloads: Sequence[bytes], window: int) -> float:
    """Publish all of `payloads` with QoS 1 to mqtt://HOST:PORT; return the seconds from the first to the last PUBACK."""
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.max_inflight_messages_set(0)
    acked = 0

    def on_publish(*arguments: object) -> None:
        nonlocal acked
        acked += 1

    client.on_publish = on_publish
    host, port = url.removeprefix("mqtt://").split(":")
    client.connect(host, int(port))
    while not client.is_connected():
        client.loop(0.1)
    sent = 0
    began = time.perf_counter()
    while acked < len(payloads):
        while sent < len(payloads) and sent - acked < window:
            client.publish(topic, payloads[sent], qos=1)
            sent += 1
        client.loop(1.0)
    seconds = time.perf_counter() - began
    client.disconnect()
    client.loop(0.1)
    return seconds
