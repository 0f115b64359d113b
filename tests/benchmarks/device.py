"""How much the device adds to decode + preprocess + invoke: time from a closed file to a committed outcome, and memory.

The device is the real one (`cxr-edge run`: watch, infer with its decoding child, relay) with a real broker and aggregator. The
bare work is done in this process on the same bytes, in turn with the device.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

from edge.network.bundle import load_bundle
from edge.outbox.writer import Entry, Outbox
from edge.pixels.preprocess import preprocess_image
from tests.benchmarks.figures import Figures, noisy_picture, pss_kib
from tests.support.clinic import Device, make_device
from tests.support.mosquitto import loopback_mosquitto
from tests.support.processes import end, wait_for

SMALL_REPEATS = 60
KINDS = (("png", "png", (2000, 2500), 15), ("jpeg", "jpeg", (2000, 2500), 15), ("small", "jpeg", (512, 512), SMALL_REPEATS))
"""Name in the figures, kind, width and height in pixels, how often it is measured."""


def measure(home: Path) -> Figures:
    """Return device_time_ratio_*, overhead_ratio_small, decode_rss_ratio, other_rss_ratio and what they are made of."""
    with loopback_mosquitto(home / "mosquitto") as broker:
        aggregator = subprocess.Popen(
            [sys.executable, "-m", "broker.cli", "aggregate", "--mqtt", broker.url, "--db", f"sqlite:///{home}/centre.db"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        device = make_device(home / "device", broker.url)
        device.start()
        try:
            return _measure(home, device)
        finally:
            device.stop()
            end(aggregator)


def _measure(home: Path, device: Device) -> Figures:
    wait_for(lambda: len(device.pids()) == 6 and (device.state / "outbox.db").exists(), "all processes of the device")
    time.sleep(3)  # until the model is loaded and the relay has said hello
    bench = _Bench(home, device)
    figures: Figures = {}
    for name, kind, size, repeats in KINDS:
        taken = [bench.once(kind, *size) for _ in range(repeats + 2)][2:]
        figures[f"device_time_ms_{name}"] = statistics.median(whole for whole, _ in taken) * 1e3
        figures[f"bare_time_ms_{name}"] = statistics.median(bare for _, bare in taken) * 1e3
        if name == "small":
            least = bench.commit_and_rename(SMALL_REPEATS)
            figures["commit_and_rename_ms"] = least * 1e3
            figures["overhead_ratio_small"] = statistics.median(whole - bare for whole, bare in taken) / least
        else:
            figures[f"device_time_ratio_{name}"] = statistics.median(whole / bare for whole, bare in taken)
    memory = _MemoryWatch(device)  # only now: looking at a process's pages holds it up
    for _, kind, size, repeats in KINDS:
        for _ in range(repeats):
            bench.once(kind, *size)
    peaks = memory.stop()
    bare = _bare_runtime_pss(home)
    figures |= {f"peak_pss_mib_{name}": value / 1024 for name, value in peaks.items()}
    figures["bare_runtime_pss_mib"] = bare / 1024
    figures["decode_rss_ratio"] = peaks.pop("decoder") / bare
    figures["other_rss_ratio"] = max(peaks.values()) / bare
    return figures


class _Bench:
    def __init__(self, home: Path, device: Device) -> None:
        self._device = device
        self._outbox = device.outbox()
        self._scratch = home / "scratch"
        self._scratch.mkdir()
        self._classifier = load_bundle().classifier
        self._rng = np.random.default_rng(20260131)
        self._count = 0

    def once(self, kind: str, width: int, height: int) -> tuple[float, float]:
        """Return seconds (file closed -> outcome committed, decode + preprocess + invoke of the same bytes)."""
        self._count += 1
        content = noisy_picture(self._rng, kind, width=width, height=height)
        before = self._outbox.last_seq()
        with (self._device.inbox / f"n{self._count}.{kind}").open("wb") as file:
            file.write(content)
            file.flush()
            began = time.perf_counter()
            # Leaving the block closes the file, which is the moment that the device is told of.
        while self._outbox.last_seq() == before:
            time.sleep(0.00002)
            assert time.perf_counter() < began + 30, "the device gave no outcome within 30 s"
        whole = time.perf_counter() - began
        time.sleep(0.15)  # delivery and receipt of this one are not to be counted against the next
        path = self._scratch / "bare"
        path.write_bytes(content)
        began = time.perf_counter()
        with Image.open(path) as image:
            self._classifier.run(np.asarray(preprocess_image(image)))
        return whole, time.perf_counter() - began

    def commit_and_rename(self, repeats: int) -> float:
        """Return the median seconds of one outbox commit plus one fsync-and-rename of a new 512-pixel JPEG."""
        outbox = Outbox(self._scratch / "outbox.db", "bench")
        payload = b"x" * 900
        times = []
        for number in range(repeats):
            content = noisy_picture(self._rng, "jpeg", width=512, height=512)
            path = self._scratch / f"{number}.part"
            path.write_bytes(content)
            began = time.perf_counter()
            outbox.record(Entry(f"key {number}", "result", lambda seq: payload))
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)
            os.rename(path, self._scratch / f"{number}.jpg")
            times.append(time.perf_counter() - began)
        outbox.close()
        return statistics.median(times)


class _MemoryWatch:
    """Samples the proportional set size of every process of the device, every 20 ms."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._peaks: dict[str, int] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> dict[str, int]:
        """Return the peaks in KiB by process."""
        self._done.set()
        self._thread.join()
        return self._peaks

    def _run(self) -> None:
        pids = self._device.pids()
        while not self._done.wait(0.02):
            for name, pid in pids.items():
                self._peaks[name] = max(self._peaks.get(name, 0), pss_kib(pid))


def _bare_runtime_pss(home: Path) -> int:
    """Return the proportional set size in KiB of a process with the runtime, the model and one 512-pixel file."""
    path = home / "one.jpg"
    path.write_bytes(noisy_picture(np.random.default_rng(1), "jpeg", width=512, height=512))
    script = (
        "import sys, numpy as np; from PIL import Image; from edge.network.classify import new_interpreter\n"
        "from edge.network.manifest import SHIPPED, read_manifest\n"
        "i = new_interpreter((SHIPPED / read_manifest(SHIPPED).model_file).read_bytes(), 1); i.allocate_tensors()\n"
        "a = np.asarray(Image.open(sys.argv[1]).resize((192, 192)))\n"
        "i.set_tensor(i.get_input_details()[0]['index'], (a ^ 128).view(np.int8)[None, :, :, None]); i.invoke()\n"
        "print('READY', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"READY"
        return pss_kib(process.pid)
