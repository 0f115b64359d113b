"""The processes of clinic and centre: each started as a service manager would, ended by SIGKILL, and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from tests.soak.clocks import Clock, Clocks
from tests.support.centre import ROOT
from tests.support.processes import end, find_program

DEVICE = ("watch", "infer", "relay", "dicom", "page")
CENTRE = ("aggregator", "mosquitto")
KINDS = (*DEVICE, "decoder", *CENTRE)
"""What is killed; the decoder is a child of infer, which starts it again."""

_PAUSE_S = 1.0
"""Before one that ended by itself is started again: RestartSec of the units in `firmware_configs/` is longer."""
_DECODER_S = 3.0
"""Between two kills of a decoder: one that is killed twice at one picture has shown that it cannot be read, by design."""


def tied(*command: str) -> list[str]:
    """Return the command of a process that ends with the thread which starts it, however that ends."""
    return [find_program("setpriv", "util-linux"), "--pdeathsig", "KILL", "--", *command]


class Processes:
    """Not for several threads: who starts a process must live as long as it."""

    def __init__(self, commands: dict[str, list[str]], logs: Path, clocks: Clocks) -> None:
        """Args: commands: those of DEVICE and CENTRE; logs: folder for one log each."""
        self._commands = commands
        self._logs = logs
        self._clocks = clocks
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._not_before: dict[str, float] = {}
        self._decoder_again = 0.0
        self.clock: Clock = "right"
        self.kills: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()

    def start(self, name: str) -> None:
        """Start one, or start it again; one that runs is left alone."""
        if name in self._running and self._running[name].poll() is None:
            return
        environment = os.environ | (self._clocks.environment(self.clock) if name in DEVICE else {})
        with self.log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                tied(*self._commands[name]), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT, env=environment
            )
        self._not_before.pop(name, None)

    def kill(self, name: str, *, again: bool = True) -> bool:
        """Kill one, and start it again at once if `again`. Return whether it ran."""
        if name == "decoder":
            return self._kill_decoder()
        process = self._running.get(name)
        if process is None or process.poll() is not None:
            return False
        process.kill()
        process.wait()
        self.kills[name] += 1
        del self._running[name]
        if again:
            self.start(name)
        return True

    def look_after(self) -> None:
        """Start again what ended by itself."""
        now = time.monotonic()
        for name, process in list(self._running.items()):
            if process.poll() is not None:
                self.ended[f"{name}: {process.returncode}"] += 1
                del self._running[name]
                self._not_before[name] = now + _PAUSE_S
        for name in [name for name, due in self._not_before.items() if now >= due]:
            self.start(name)

    def end(self) -> None:
        """End all of them."""
        for process in self._running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._running.values():
            end(process)

    def log(self, name: str) -> Path:
        """Return where one writes what it says."""
        return self._logs / f"{name}.log"

    def _kill_decoder(self) -> bool:
        infer = self._running.get("infer")
        if infer is None or time.monotonic() < self._decoder_again:
            return False
        try:
            children = Path(f"/proc/{infer.pid}/task/{infer.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGKILL)
        except (OSError, IndexError):
            return False
        self._decoder_again = time.monotonic() + _DECODER_S
        self.kills["decoder"] += 1
        return True


def edge_command(name: str, config: Path) -> list[str]:
    """Return the command of one process of the device."""
    return [sys.executable, "-m", "edge.cli", name, "--config", str(config)]
