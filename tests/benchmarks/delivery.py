"""The outbox against a bare append, and draining it to the broker against bare paho with the same window."""

from __future__ import annotations

import os
import statistics
import time
import zlib
from pathlib import Path

from edge.config import Relay
from edge.delivery.mqtt import Acked, Connected, PahoLink
from edge.delivery.window import Delivery
from edge.outbox.writer import Entry, Outbox
from tests.benchmarks.bare import publish_all
from tests.benchmarks.figures import Figures
from tests.support.mosquitto import loopback_mosquitto

ROWS = 4000
WINDOW = 50
PAYLOAD = 900
INSERTS = 1500


def measure(home: Path) -> Figures:
    """Return outbox_insert_ratio (time of a commit / time of append + fdatasync) and drain_ratio (rate / rate of bare paho)."""
    figures = _inserts(home)
    outbox = Outbox(home / "drain.db", "bench")
    outbox._db.execute("BEGIN")
    for number in range(ROWS):
        outbox._db.execute(
            "INSERT INTO outcome (number, source_key, kind, payload, original_name, place, crc) "
            "VALUES (?, ?, 'result', ?, '', '', ?)",
            (number + 1, str(number), payload := os.urandom(PAYLOAD // 2).hex().encode(), zlib.crc32(payload)),
        )
    outbox._db.execute("COMMIT")
    with loopback_mosquitto(home / "mosquitto") as broker:
        pairs = [(_drain(outbox, broker.url), _bare(outbox, broker.url)) for _ in range(8)][1:]
    figures["drain_ratio"] = statistics.median(ours / bare for ours, bare in pairs)
    figures["drain_per_s"] = statistics.median(ours for ours, _ in pairs)
    figures["bare_paho_per_s"] = statistics.median(bare for _, bare in pairs)
    outbox.close()
    return figures


def _inserts(home: Path) -> Figures:
    outbox = Outbox(home / "insert.db", "bench")
    payload = b"x" * PAYLOAD
    commits, appends = [], []
    handle = os.open(home / "append", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in range(INSERTS):
        began = time.perf_counter()
        outbox.record(Entry(f"{number:064d}", "result", lambda seq: payload))
        middle = time.perf_counter()
        os.write(handle, payload)
        os.fdatasync(handle)
        appends.append(time.perf_counter() - middle)
        commits.append(middle - began)
    os.close(handle)
    outbox.close()
    return {
        "outbox_insert_ratio": statistics.median(commits) / statistics.median(appends),
        "outbox_insert_ms": statistics.median(commits) * 1e3,
    }


def _link(url: str) -> PahoLink:
    link = PahoLink(Relay(url=url), "bench", "cxr/v1/bench/status", b"{}")
    while not any(isinstance(event, Connected) for event in link.poll(1.0)):
        pass
    link.poll(0.0).clear()
    return link


def _drain(outbox: Outbox, url: str) -> float:
    """Return messages a second from the outbox to PUBACK, by the device's own sender."""
    link = _link(url)
    delivery = Delivery(outbox, window=WINDOW, timeout_s=600)
    acked = 0
    began = time.perf_counter()
    while acked < ROWS:
        now = time.monotonic()
        while (row := delivery.take(now)) is not None:
            delivery.published(link.publish("cxr/v1/bench/result", row.payload), row.number, now)
        events = link.poll(1.0)
        while events:
            event = events.popleft()
            if isinstance(event, Acked) and delivery.acknowledged(event.mid, now) is not None:
                acked += 1
    rate = ROWS / (time.perf_counter() - began)
    link.close()
    return rate


def _bare(outbox: Outbox, url: str) -> float:
    """Return messages a second of paho alone with the same window, the messages in memory."""
    payloads = [row.payload for row in outbox.unreceipted(0, ROWS)]
    return ROWS / publish_all(url, "cxr/v1/bench/result", payloads, WINDOW)
