"""From messages that wait at the broker to committed rows, against the same aggregator with a store that forgets."""

from __future__ import annotations

import secrets
import statistics
import threading
import time
from pathlib import Path

import msgspec

from broker.aggregate import Aggregator
from broker.database import parse_url
from broker.mqtt import Address, PahoLink
from broker.sql_store import SqlStore
from broker.store import NullStore, Store
from edge.contract.codec import encode
from edge.contract.topics import Channel, topic
from tests.benchmarks.bare import publish_all
from tests.benchmarks.figures import Figures
from tests.golden.examples import EXAMPLES
from tests.support.mosquitto import loopback_mosquitto

MESSAGES = 10_000
PAIRS = 6
_WINDOW = 100


def measure(home: Path) -> Figures:
    """Return ingest_sqlite_ratio (rate with SQLite / rate without a store), pairs in turn, and both rates."""
    with loopback_mosquitto(home / "mosquitto") as broker:
        sqlite = SqlStore(parse_url(f"sqlite:///{home / 'centre.db'}"))
        try:
            pairs = [(_rate(broker.url, sqlite), _rate(broker.url, NullStore())) for _ in range(PAIRS + 1)][1:]
        finally:
            sqlite.close()
    return {
        "ingest_sqlite_ratio": statistics.median(stored / bare for stored, bare in pairs),
        "ingest_sqlite_per_s": statistics.median(stored for stored, _ in pairs),
        "ingest_no_store_per_s": statistics.median(bare for _, bare in pairs),
    }


def _rate(url: str, store: Store) -> float:
    """Return messages a second from a full queue at the broker to acknowledged, each batch committed before."""
    client_id = f"bench-{secrets.token_hex(4)}"
    link = PahoLink(Address.parse(url), client_id)
    link.start()  # makes the session that the broker queues for
    assert link._connected.wait(10)
    time.sleep(0.3)
    link.close()
    _publish(url)
    link = PahoLink(Address.parse(url), client_id)
    aggregator, stop = Aggregator(store, link), threading.Event()
    thread = threading.Thread(target=aggregator.run, args=(stop,))
    began = time.perf_counter()
    link.start()
    thread.start()
    while aggregator.handled < MESSAGES:
        time.sleep(0.002)
    rate = MESSAGES / (time.perf_counter() - began)
    stop.set()
    thread.join()
    link.close()
    return rate


def _publish(url: str) -> None:
    """Leave MESSAGES results of a new epoch at the broker."""
    example, epoch = EXAMPLES["result"], secrets.token_hex(16)
    numbered = (msgspec.structs.replace(example, device="bench", epoch=epoch, seq=seq) for seq in range(1, MESSAGES + 1))
    publish_all(url, topic("bench", Channel.RESULT), [encode(outcome) for outcome in numbered], _WINDOW)
