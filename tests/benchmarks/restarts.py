"""Seconds from the SIGKILL of a process of the device until what it does is done again, under `cxr-edge run`."""

from __future__ import annotations

import os
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from pynetdicom import AE
from pynetdicom.sop_class import Verification

from edge.config import load_config
from tests.benchmarks.figures import Figures
from tests.support.centre import aggregator
from tests.support.clinic import Device, make_device, small_picture
from tests.support.mosquitto import loopback_mosquitto
from tests.support.processes import free_port, listens, wait_for

ROUNDS = 3
_SETTLED_S = 21.0
"""One that ran for less is started again after a pause that grows, which is not what is measured."""


def measure(home: Path) -> Figures:
    """Return serving_again_s_NAME, the worst of a few kills, for each process but `pacs`; and serving_again_s, the worst of all."""
    with (
        loopback_mosquitto(home) as broker,
        aggregator(home, broker.url, f"sqlite:///{home / 'centre.db'}"),
    ):
        device = make_device(home / "device", broker.url)
        table = f'\n[dicom]\nport = {free_port()}\nallow = ["XRAY1@127.0.0.1"]\n'
        device.config.write_text(device.config.read_text("utf-8") + table, "utf-8")
        device.start()
        try:
            figures = _worst(_Line(device))
        finally:
            device.stop()
    return figures | {"serving_again_s": max(figures.values())}


def _worst(line: _Line) -> Figures:
    figures: Figures = {}
    for _ in range(ROUNDS):
        time.sleep(_SETTLED_S)
        for name, serves in line.services().items():
            figures[f"serving_again_s_{name}"] = max(figures.get(f"serving_again_s_{name}", 0.0), line.kill(name, serves))
    return figures


class _Line:
    """A running device; each service is asked for what its process alone does."""

    def __init__(self, device: Device) -> None:
        self._device = device
        config = load_config(device.config)
        assert config.dicom is not None
        assert config.page is not None
        self._dicom, self._page = config.dicom.port, config.page.port
        self._count = 0
        wait_for(lambda: len(device.pids()) == 7 and listens(self._page) and listens(self._dicom), "all processes", 60)
        self._film()
        wait_for(lambda: device.waiting() == 0, "the first receipt", 60)

    def services(self) -> dict[str, Callable[[], bool]]:
        """Return, by process, what asks whether it serves."""
        return {
            "watch": self._takes,
            "infer": lambda: self._device.outbox().last_seq() == self._count,
            "relay": self._rests,
            "dicom": self._echoes,
            "page": self._answers,
        }

    def kill(self, name: str, serves: Callable[[], bool]) -> float:
        """End a process without a warning, give it something to do, and return when that was done."""
        wait_for(self._rests, "everything is at rest", 60)
        pid = self._device.pids()[name]
        os.kill(pid, signal.SIGKILL)
        began = time.perf_counter()
        wait_for(lambda: self._device.pids().get(name) != pid, "it has ended")
        self._film()
        wait_for(serves, f"{name} serves again", 60)
        return time.perf_counter() - began

    def _rests(self) -> bool:
        return self._device.waiting() == 0 and self._device.outbox().last_seq() == self._count

    def _takes(self) -> bool:
        """Whether a film that comes now is taken: one that came while nobody watched is left to settle."""
        self._film()
        newest = self._device.inbox / f"{self._count}.png"
        time.sleep(0.3)
        return not newest.exists()

    def _film(self) -> None:
        self._count += 1
        small_picture(self._device.inbox / f"{self._count}.png", self._count)

    def _echoes(self) -> bool:
        application = AE("XRAY1")
        application.add_requested_context(Verification)
        if not listens(self._dicom):
            return False
        assoc = application.associate("127.0.0.1", self._dicom, ae_title="CXR-EDGE")
        if not assoc.is_established:
            return False
        status = assoc.send_c_echo()
        assoc.release()
        return bool(status.get("Status") == 0)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._page}/healthz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
