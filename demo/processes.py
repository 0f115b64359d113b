"""The processes of the demonstration: started here, ended here, whatever happens in between."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

_GRACE_S = 10.0


class Processes:
    """A context in which processes run; leaving it ends them in reverse order."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave anything running
        for _, process in reversed(self._running):
            process.terminate()
            try:
                process.wait(timeout=_GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def start(self, name: str, module: str, *arguments: str) -> None:
        """Start `python -m MODULE ARGUMENTS`; what it says goes to a file of its own."""
        with (self._logs / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches this program alone, which then ends them in order
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - no threads run here
            )
        self._running.append((name, process))

    def ended(self) -> str | None:
        """Return what a process that ended by itself said last, or None while all run."""
        for name, process in self._running:
            if process.poll() is not None:
                said = (self._logs / f"{name}.log").read_text("utf-8", "replace").strip().splitlines()
                return f"{name} ended ({process.returncode}): {said[-1] if said else 'without a word'}"
        return None


def free_port() -> int:
    """Return a port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, timeout_s: float) -> bool:
    """Return whether something listens on the port before the time is over."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=0.5).close()
        except OSError:
            time.sleep(0.1)
        else:
            return True
    return False


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if os.getppid() == 1:
        os._exit(0)
