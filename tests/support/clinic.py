"""One clinic device for tests: its folders, its configuration, its processes."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops

from edge.commands.setup_device import set_up
from edge.errors import OutboxError
from edge.outbox.reader import OutboxReader
from edge.outbox.writer import Outbox
from export.phantom import phantom
from tests.support.processes import free_port


@dataclass
class Device:
    """A device in a folder of its own; `start` runs `cxr-edge run` there."""

    home: Path
    name: str = "clinic-1"
    process: subprocess.Popen[bytes] | None = None
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.home / "device.log"

    @property
    def config(self) -> Path:
        return self.home / "device.toml"

    @property
    def inbox(self) -> Path:
        return self.home / "inbox"

    @property
    def state(self) -> Path:
        return self.home / "state"

    def start(self) -> None:
        """Start the supervisor and with it all processes."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edge.cli", "run", "--config", str(self.config)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def stop(self) -> int:
        """Ask the supervisor to end, and wait for it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    def outbox(self) -> Outbox:
        """Open the outbox for reading."""
        return OutboxReader(self.state / "outbox.db", self.name)

    def waiting(self) -> int | None:
        """Return how many outcomes wait for a receipt; None before there is any, or while the outbox is being made."""
        try:
            outbox = self.outbox()
        except OutboxError:
            return None
        try:
            return outbox.waiting() if outbox.last_seq() else None
        finally:
            outbox.close()

    def pids(self) -> dict[str, int]:
        """Return the process ids of this device's running processes, by what they do."""
        assert self.process is not None
        found = {"run": self.process.pid} if self.process.poll() is None else {}
        running = _processes()
        for pid, (parent, words) in running.items():
            if parent == self.process.pid and "-m" in words:
                found[words[words.index("-m") + 2]] = pid
        for pid, (parent, _) in running.items():
            if parent == found.get("infer"):
                found["decoder"] = pid
        return found


def make_device(home: Path, broker: str, name: str = "clinic-1", extra: Sequence[str] = (), readings: int = 0) -> Device:
    """Write a device's files; `extra` lines end up in [relay]. Answers are shown at once, unless `readings` come before."""
    set_up(home, name, "Test clinic", broker, free_port())
    device = Device(home, name)
    text = device.config.read_text("utf-8").replace("readings = 100 ", f"readings = {readings} ")
    device.config.write_text(text + "\n".join(extra) + "\n", "utf-8")
    return device


def small_picture(path: Path, seed: int, side: int = 200) -> Path:
    """Write a drawn chest that passes the quality gate, each seed another; complete under its name at once."""
    rng = np.random.default_rng(seed)
    shade = Image.fromarray(rng.integers(0, 12, (8, 8), dtype=np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    part = path.with_name(f".{path.name}.part")
    ImageChops.add(_chest(side), shade).save(part, format="PNG" if path.suffix == ".png" else "JPEG")
    os.rename(part, path)
    return path


@functools.cache
def _chest(side: int) -> Image.Image:
    """Drawing takes a hundred times as long as shading."""
    return Image.fromarray(phantom(1, width=side, height=side))


def _processes() -> dict[int, tuple[int, list[str]]]:
    """Return (parent's process id, words of the command line) of every running process by its id."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                words = (entry / "cmdline").read_bytes().decode().split("\0")
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if state != "Z":
                    found[int(entry.name)] = (int(parent), words)
    return found
