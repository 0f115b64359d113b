"""Keeps the processes of one device running where there is no systemd: starts them, starts them again, ends them together.

One that makes no progress is killed and started again like one that has ended, each alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from edge.unattended.hearing import Hearing
from edge.unattended.lifecycle import Stop

log = logging.getLogger(__name__)

_PAUSE_S = (0.2, 30.0)
_SETTLED_S = 20.0


@dataclass
class _Child:
    name: str
    command: Sequence[str]
    hearing: Hearing = field(default_factory=Hearing)
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
                self._listen_to(child, child.process)
                return
            child.process = None
            # One that ran for a while is started again at once; one that falls over at each start is given more and more time.
            child.pause = _PAUSE_S[0] if now - child.started > _SETTLED_S else min(child.pause * 2, _PAUSE_S[1])
            child.not_before = now + child.pause
            text = "%s ended (%s); it is started again in %.1f s"
            log.warning(text, child.name, _ending(code), child.pause, extra={"event": "restart", "fields": {"of": child.name}})
        if now >= child.not_before:
            child.hearing.start_over()
            child.started = now
            try:
                environment = os.environ | child.hearing.environment()
                child.process = subprocess.Popen(child.command, stdin=subprocess.DEVNULL, env=environment)
            except OSError as error:  # no memory for one more process must not end the others
                child.pause = min(child.pause * 2, _PAUSE_S[1])
                child.not_before = now + child.pause
                log.error("%s cannot be started (%s)", child.name, error.strerror, extra={"event": "restart"})

    def _listen_to(self, child: _Child, process: subprocess.Popen[bytes]) -> None:
        # First all that was said, then the clock: a supervisor that was itself held up must not blame its children.
        child.hearing.listen(process.pid)
        if child.hearing.overdue(time.monotonic()):
            phase = "" if child.hearing.ready else " at its start"
            fields = {"of": child.name}
            log.error("%s makes no progress%s; it is ended", child.name, phase, extra={"event": "hang", "fields": fields})
            process.kill()
            child.hearing.no_more()

    def _end_all(self) -> None:
        asked = time.monotonic()
        running = {child.name: (child, child.process) for child in self._children if child.process is not None}
        for _, process in running.values():
            process.terminate()
        while running:
            for child, process in list(running.values()):
                child.hearing.listen(process.pid)
                if process.poll() is None and time.monotonic() > child.hearing.stop_within(asked):
                    log.error("%s does not end; it is killed, and what it had in hand is taken up at the next start", child.name)
                    process.kill()
                    with contextlib.suppress(subprocess.TimeoutExpired):  # one that waits for a broken disk ends when that answers
                        process.wait(timeout=5)
                    del running[child.name]
                elif process.poll() is not None:
                    del running[child.name]
            time.sleep(0.02)
        for child in self._children:
            child.hearing.close()


def own_command(*arguments: str) -> list[str]:
    """Return the command line that runs `cxr-edge ARGUMENTS` with this interpreter."""
    return [sys.executable, "-m", "edge.cli", *arguments]


def _ending(code: int) -> str:
    return f"exit status {code}" if code >= 0 else f"signal {-code}"
