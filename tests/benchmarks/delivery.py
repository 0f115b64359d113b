"""The outbox against a bare append, and draining it to the broker against bare paho with the same window."""

from __future__ import annotations

import os
import statistics
import time
import zlib
from collections.abc import Callable
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
    """Return outbox_insert_ratio (time of a commit / time of append + fdatasync) and drain_ratio (rate / rate of bare paho).

    outbox_insert_ratio_10 is the same of ten outcomes at once. The device never does that: each outcome is on the disk before its
    film leaves the spool. It says what a commit costs beside its rows.
    """
    figures = _inserts(home)
    outbox = Outbox(home / "drain.db", "bench")
    _commit(outbox, range(1, ROWS + 1))
    with loopback_mosquitto(home / "mosquitto") as broker:
        pairs = [(_drain(outbox, broker.url), _bare(outbox, broker.url)) for _ in range(8)][1:]
    figures["drain_ratio"] = statistics.median(ours / bare for ours, bare in pairs)
    figures["drain_per_s"] = statistics.median(ours for ours, _ in pairs)
    figures["bare_paho_per_s"] = statistics.median(bare for _, bare in pairs)
    outbox.close()
    return figures


def _commit(outbox: Outbox, numbers: range) -> None:
    """Put outcomes into the outbox in one commit, past what looks at each."""
    outbox._db.execute("BEGIN IMMEDIATE")
    for number in numbers:
        outbox._db.execute(
            "INSERT INTO outcome (number, source_key, kind, payload, original_name, place, crc) "
            "VALUES (?, ?, 'result', ?, '', '', ?)",
            (number, str(number), payload := os.urandom(PAYLOAD // 2).hex().encode(), zlib.crc32(payload)),
        )
    outbox._db.execute("COMMIT")


def _inserts(home: Path) -> Figures:
    ours, bare = _in_turn(home / "insert.db", lambda outbox, number: outbox.record(_entry(number)), 1)
    ours_10, bare_10 = _in_turn(
        home / "insert-10.db", lambda outbox, number: _commit(outbox, range(10 * number + 1, 10 * number + 11)), 10
    )
    return {
        "outbox_insert_ratio": ours / bare,
        "outbox_insert_ratio_10": ours_10 / bare_10,
        "outbox_insert_ms": ours * 1e3,
        "outbox_insert_10_ms": ours_10 * 1e3,
    }


def _entry(number: int) -> Entry:
    return Entry(f"{number:064d}", "result", lambda seq: b"x" * PAYLOAD)


def _in_turn(path: Path, insert: Callable[[Outbox, int], object], rows: int) -> tuple[float, float]:
    """Return the median seconds of `insert`, and of appending as many bytes as its `rows` have to a file, forced to the disk."""
    outbox = Outbox(path, "bench")
    commits, appends = [], []
    handle = os.open(path.with_suffix(".append"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in range(INSERTS):
        began = time.perf_counter()
        insert(outbox, number)
        middle = time.perf_counter()
        os.write(handle, b"x" * PAYLOAD * rows)
        os.fdatasync(handle)
        appends.append(time.perf_counter() - middle)
        commits.append(middle - began)
    os.close(handle)
    outbox.close()
    return statistics.median(commits), statistics.median(appends)


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
