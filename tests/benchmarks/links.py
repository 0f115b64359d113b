"""Seconds from a link that goes silent to the first HTTPS receipt, with the settings as shipped; and a backlog over each link."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.figures import Figures
from tests.support.authority import Authority
from tests.support.centre import aggregator
from tests.support.mosquitto import loopback_mosquitto
from tests.support.processes import free_port, wait_for
from tests.support.remote import Remote, remote, tls, wire

BACKLOG = 18_000


def measure(home: Path) -> Figures:
    """Return half_open_to_https_s, half_open_noticed_s, backlog_mqtt_s and backlog_https_s.

    A backlog counts from its first receipt on, which is when the link stands, to the last: all rows are then in the database.
    """
    authority, port = Authority(home / "ca"), free_port()
    server = authority.server("centre")
    sync = ["--sync", f"https://127.0.0.1:{port}", "--sync-ca", str(authority.ca)]
    sync += ["--sync-cert", str(server.cert), "--sync-key", str(server.key)]

    def device(name: str, broker: int, **more: object) -> Remote:
        lines = tls(authority.ca, authority.client(name)) | {"https": f"https://127.0.0.1:{port}"} | more
        return remote(home / name, name, f"mqtt://127.0.0.1:{broker}", **lines)

    with (
        loopback_mosquitto(home / "mosquitto") as broker,
        wire(broker.port) as link,
        aggregator(home, broker.url, f"sqlite:///{home / 'centre.db'}", sync),
    ):
        figures = _half_open(device("half-open", link.port), link.cut)
        figures["backlog_mqtt_s"] = _backlog(device("backlog-mqtt", broker.port))
        figures["backlog_https_s"] = _backlog(device("backlog-https", free_port(), https_after_s=0.1))
    return figures


def _backlog(device: Remote) -> float:
    """Return the seconds that all of a backlog takes, at the rate of what was not yet receipted at the first look."""
    device.record_at_once(BACKLOG)
    with device.relay():
        wait_for(lambda: device.waiting() < BACKLOG, "the first receipts", 60)
        began, left = time.perf_counter(), device.waiting()
        wait_for(lambda: device.waiting() == 0, "all of them", 600)
        return (time.perf_counter() - began) * BACKLOG / left


def _half_open(device: Remote, cut: Callable[[], None]) -> Figures:
    with device.relay():
        device.record(1)
        wait_for(lambda: device.waiting() == 0, "MQTT delivers", 60)
        cut()
        began = time.perf_counter()
        device.record(1)
        noticed = delivered = 0.0
        while not (noticed and delivered):
            now = time.perf_counter() - began
            assert now < 180
            noticed = noticed or (now if device.said("the connection was lost") else 0.0)
            delivered = delivered or (now if device.waiting() == 0 else 0.0)
            time.sleep(0.1)
    return {"half_open_noticed_s": noticed, "half_open_to_https_s": delivered}
