"""The whole device (`cxr-edge run`) under the memory that a profile leaves it, with the largest films that the profile takes.

Its broker and aggregator run outside of the limit. The configuration is the profile's but for places, for TLS, which a loopback
broker does not want, and for the time a film may take, which would be this machine's. The listener for X-ray machines runs too,
which a profile leaves to the clinic.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import tomllib

from edge.config import Device as Settings
from edge.config import load_config
from edge.page.film import order_of
from edge.page.session import make_pin
from edge.pixels.turn import turn_of
from edge.privacy.pseudonym import make_site_key
from tests.benchmarks.figures import pss_kib
from tests.benchmarks.footprint.cgroup import MemoryGroup, memory_group
from tests.benchmarks.footprint.films import read_by
from tests.support.centre import aggregator
from tests.support.clinic import Device
from tests.support.mosquitto import loopback_mosquitto
from tests.support.processes import free_port, listens, wait_for

SYSTEM_MB = 128
"""What the rest of the system is left: Raspberry Pi OS Lite takes about 100 MB at rest. It was not measured here."""


@dataclass
class Memory:
    """What was seen of one profile, in MiB. peaks: proportional set size by process. films: encoding -> what became of it.

    killed: how many the kernel ended for want of memory; ended: which, as far as its log says. shown: how many the page could draw.
    """

    limit: int
    limited: bool
    peak: float = 0.0
    at_rest: float = 0.0
    killed: int = 0
    ended: list[str] = field(default_factory=list)
    delivered: int = 0
    shown: int = 0
    peaks: dict[str, float] = field(default_factory=dict)
    films: dict[str, str] = field(default_factory=dict)


def measure(profile: Path, home: Path, films: Mapping[str, Path]) -> Memory:
    """Run a profile's device, feed it `films` (encoding -> file), and return what it took."""
    board = load_config(profile).board
    assert board is not None
    limit = board.memory_mb - SYSTEM_MB
    with (
        loopback_mosquitto(home / "mosquitto") as broker,
        aggregator(home, broker.url, f"sqlite:///{home / 'centre.db'}"),
        memory_group(limit * 2**20) as group,
    ):
        device = make(profile, home / "device", broker.url)
        seen = Memory(limit, group is not None)
        with _running(device, group):
            _feed(device, seen, group, films)
        return seen


def make(profile: Path, home: Path, broker: str) -> Device:
    """Write a profile's configuration with the places and ports of here."""
    (home / "inbox").mkdir(parents=True)
    (home / "state").mkdir(mode=0o700)
    make_site_key(home / "site.key")
    make_pin(home / "page.pin")
    text = tomllib.loads(profile.read_text("utf-8"))
    text |= {"state": "state", "site_key": "site.key", "relay": {"url": broker, "window": text["relay"]["window"]}}
    text["watch"]["folder"] = "inbox"
    text["page"] = {"pin": "page.pin", "port": free_port()}
    text["dicom"] = {"port": free_port(), "allow": ["XRAY1@127.0.0.1"]}
    text["commissioning"]["readings"] = 0
    text["decode"]["timeout_s"] = 600.0
    del text["usb"]
    device = Device(home)
    device.config.write_text(_toml(text), "utf-8")
    return device


def _toml(tables: dict[str, Any]) -> str:
    """What a profile is made of is written the same in TOML and in JSON."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in tables.items() if not isinstance(value, dict)]
    for name, table in tables.items():
        if isinstance(table, dict):
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def _running(device: Device, group: MemoryGroup | None) -> Iterator[None]:
    command = [sys.executable, "-m", "edge.cli", "run", "--config", str(device.config)]
    with device.log.open("ab") as log:
        device.process = subprocess.Popen(
            command if group is None else group.command(command), stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    try:
        yield
    finally:
        device.stop()


def _feed(device: Device, seen: Memory, group: MemoryGroup | None, films: Mapping[str, Path]) -> None:
    settings = load_config(device.config)
    assert settings.page is not None
    assert settings.dicom is not None
    assert settings.board is not None
    ports = settings.page.port, settings.dicom.port
    wait_for(lambda: len(device.pids()) == 7 and all(map(listens, ports)) and _outbox(device), "all processes", 120)
    time.sleep(5)  # until the model is loaded and the relay has said hello
    watch = _Watch(device, group)
    seen.at_rest = watch.now()
    known = {name: film for name, film in films.items() if read_by(settings.board.architecture, name)}
    for number, (name, film) in enumerate(known.items(), 1):
        part = device.inbox / f".{film.name}.part"
        shutil.copyfile(film, part)
        os.rename(part, device.inbox / film.name)
        with _drawing(film, settings, group) as child:
            watch.also(child)
            wait_for(lambda number=number: _last(device) >= number, f"an outcome of {name}", 400)  # type: ignore[misc]
            seen.films[name] = _outcome(device, number)
            seen.shown += child.wait(400) == 0
    wait_for(lambda: device.waiting() == 0, "all receipts", 120)
    seen.delivered = _last(device)
    seen.peak, seen.peaks = watch.stop()
    if group is not None:
        seen.killed = group.killed()
        seen.ended = [watch.names.get(pid, "unknown") for pid in group.victims()]


@contextlib.contextmanager
def _drawing(film: Path, settings: Settings, group: MemoryGroup | None) -> Iterator[subprocess.Popen[bytes]]:
    """Draw a film as the page does when somebody looks at it, at the worst of times: while `infer` reads one as large."""
    command = [sys.executable, "-m", "edge.page.film_child"]
    child = subprocess.Popen(
        command if group is None else group.command(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert child.stdin is not None
    child.stdin.write(msgspec.msgpack.encode(order_of(film, None, settings.decode, turn_of(Path(settings.state)))))
    child.stdin.close()
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def _outbox(device: Device) -> bool:
    return (device.state / "outbox.db").exists()


def _last(device: Device) -> int:
    with contextlib.closing(device.outbox()) as outbox:
        return int(outbox.last_seq())


def _outcome(device: Device, number: int) -> str:
    """Return what became of a film: `result`, or else the first of the reasons."""
    with contextlib.closing(device.outbox()) as outbox:
        row = outbox.row(number)
    assert row is not None
    return "result" if row["kind"] == "result" else " ".join(json.loads(row["payload"])["reasons"])


class _Watch:
    """Samples what the processes hold, every 50 ms."""

    def __init__(self, device: Device, group: MemoryGroup | None) -> None:
        self._device, self._group = device, group
        self._whole, self._peaks = 0.0, dict[str, float]()
        self._drawing: int | None = None
        self.names: dict[int, str] = {}
        """Every process that was seen."""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def also(self, drawing: subprocess.Popen[bytes]) -> None:
        """Look at what draws a film too."""
        self._drawing = drawing.pid

    def now(self) -> float:
        """Return what they hold together, MiB."""
        pids = self._device.pids() | ({"drawing": self._drawing} if self._drawing is not None else {})
        self.names |= {pid: name for name, pid in pids.items()}
        parts = {name: pss_kib(pid) / 1024 for name, pid in pids.items()}
        for name, value in parts.items():
            self._peaks[name] = max(self._peaks.get(name, 0.0), value)
        return self._group.anonymous() / 2**20 if self._group is not None else sum(parts.values())

    def stop(self) -> tuple[float, dict[str, float]]:
        """Return (the peak of all together, the peaks by process), MiB."""
        self._done.set()
        self._thread.join()
        return self._whole, self._peaks

    def _run(self) -> None:
        while not self._done.wait(0.05):
            self._whole = max(self._whole, self.now())
