"""A service manager for tests: it listens as systemd does, to what one process says."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.processes import running, wait_for


@dataclass
class Manager:
    """Collects messages; `address` goes into NOTIFY_SOCKET."""

    abstract: bool = True
    folder: Path | None = None
    said: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        if self.abstract:
            self.address = f"@cxr-test-{os.getpid()}-{secrets.token_hex(4)}"
            self._socket.bind("\0" + self.address[1:])
        else:
            assert self.folder is not None
            self.address = str(self.folder / "notify")
            self._socket.bind(self.address)

    def close(self) -> None:
        self._socket.close()

    def environment(self) -> dict[str, str]:
        return os.environ | {"NOTIFY_SOCKET": self.address, "WATCHDOG_USEC": "90000000"}

    def lines(self) -> list[str]:
        """Return everything that was said until now, line by line."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.said.append((time.monotonic(), self._socket.recv(4096).decode()))
        return [line for _, text in self.said for line in text.splitlines()]

    def heard(self, line: str) -> int:
        """Return how often a line was said."""
        return self.lines().count(line)

    def wait_for(self, line: str, times: int = 1, timeout_s: float = 30.0) -> None:
        wait_for(lambda: self.heard(line) >= times, f"the process says {line} {times} times; it said {self.said}", timeout_s)


@contextlib.contextmanager
def manager() -> Iterator[Manager]:
    """A manager with an abstract socket."""
    made = Manager()
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def managed(name: str, config: Path, log: Path, listens: Manager) -> Iterator[subprocess.Popen[bytes]]:
    """Run one process of a device as a unit of `listens`, and end it at the end."""
    command = [sys.executable, "-m", "edge.cli", name, "--config", str(config)]
    with running(command, log, env=listens.environment()) as process:
        yield process
