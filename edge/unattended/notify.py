"""What a process of the device tells its service manager: datagrams to $NOTIFY_SOCKET, as systemd takes them (sd_notify(3)).

`progress` is called where work was done, never by a timer: a process whose work hangs falls silent and is started again. How long
it may be silent is said by the process itself, since it follows from device.toml. Where nobody listens, nothing happens.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time

_EACH_S = 1.0
"""Progress is said at most as often: a small file takes a few milliseconds, and the manager counts in seconds."""


def nothing() -> None:
    """For who has nobody to tell of progress."""


class Notifier:
    """The voice of one process."""

    def __init__(self, address: str, longest_s: float, *, watched: bool) -> None:
        """Args: address: as in NOTIFY_SOCKET, or empty; longest_s: the longest piece of work; watched: whether silence counts."""
        self._socket: socket.socket | None = None
        self._limit = f"{round(longest_s * 1e6)}"
        self._watched = watched
        self._sign = f"EXTEND_TIMEOUT_USEC={self._limit}"
        self._next = 0.0
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            with contextlib.suppress(OSError):  # whoever listened has gone
                self._socket.connect("\0" + address[1:] if address.startswith("@") else address)

    @classmethod
    def of_environment(cls, longest_s: float) -> Notifier:
        """Return the voice that the service manager gave to this process; what this process starts does not inherit it."""
        return cls(os.environ.pop("NOTIFY_SOCKET", ""), longest_s, watched=os.environ.pop("WATCHDOG_USEC", None) is not None)

    def ready(self, status: str) -> None:
        """Say that this process serves from now on; `status` says what it does, for people."""
        self._sign = "WATCHDOG=1"
        watchdog = f"\nWATCHDOG_USEC={self._limit}" if self._watched else ""
        self._send(f"READY=1\nSTATUS={status}{watchdog}")

    def progress(self) -> None:
        """Say that a piece of work was done: a start or an end that takes long is given more time, else the watchdog is fed."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _EACH_S
            self._send(self._sign, 0.0)

    def stopping(self) -> None:
        """Say that this process was told to end, and does so within the usual time."""
        self._next = float("inf")
        self._send("STOPPING=1\nSTATUS=ends")

    def finishing(self) -> None:
        """Say that this process was told to end, and first finishes a piece of work that may be a long one."""
        self._sign = f"EXTEND_TIMEOUT_USEC={self._limit}"
        self._send(f"STOPPING=1\nSTATUS=finishes what it has in hand\n{self._sign}")

    def close(self) -> None:
        """Say nothing further."""
        if self._socket is not None:
            self._socket.close()

    def _send(self, text: str, patience_s: float = 1.0) -> None:
        if self._socket is not None:
            self._socket.settimeout(patience_s)
            with contextlib.suppress(OSError):  # a manager that does not listen must not hold up the work
                self._socket.send(text.encode())


NOBODY = Notifier("", 0.0, watched=False)
"""For who has no service manager."""
