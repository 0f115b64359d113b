"""Keeps the processes of one device running where there is no systemd: starts them, starts them again, ends them together."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from edge.lifecycle import Stop

log = logging.getLogger(__name__)

_PAUSE_S = (0.2, 30.0)
_SETTLED_S = 20.0
_GRACE_S = 10.0


@dataclass
class _Child:
    name: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause: float = field(default=_PAUSE_S[0])
    not_before: float = 0.0


class Supervisor:
    """Runs one process for each (name, command)."""

    def __init__(self, commands: dict[str, Sequence[str]]) -> None:
        self._children = [_Child(name, command) for name, command in commands.items()]

    def run(self, stop: Stop) -> None:
        """Keep all of them running until told to stop, then end them."""
        try:
            while not stop.is_set():
                for child in self._children:
                    self._look_after(child)
                time.sleep(0.1)
        finally:
            self._end_all()

    def _look_after(self, child: _Child) -> None:
        now = time.monotonic()
        if child.process is not None:
            code = child.process.poll()
            if code is None:
                return
            child.process = None
            # One that ran for a while is started again at once; one that falls over at each start is given more and more time.
            child.pause = _PAUSE_S[0] if now - child.started > _SETTLED_S else min(child.pause * 2, _PAUSE_S[1])
            child.not_before = now + child.pause
            log.warning("%s ended (%s); it is started again in %.1f s", child.name, _ending(code), child.pause)
        if now >= child.not_before:
            child.process = subprocess.Popen(child.command, stdin=subprocess.DEVNULL)
            child.started = now

    def _end_all(self) -> None:
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + _GRACE_S
        for process in running:
            try:
                process.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def own_command(*arguments: str) -> list[str]:
    """Return the command line that runs `cxr-edge ARGUMENTS` with this interpreter."""
    return [sys.executable, "-m", "edge.cli", *arguments]


def _ending(code: int) -> str:
    return f"exit status {code}" if code >= 0 else f"signal {-code}"
