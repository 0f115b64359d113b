"""What `cxr-edge run` hears from one of its processes: the other end of `edge.unattended.notify`, as systemd would listen."""

from __future__ import annotations

import contextlib
import socket
import struct
import time

_CREDENTIALS = struct.Struct("3i")
_START_S = 90.0
"""A process that has not said otherwise has this long to begin, as under systemd; the model is loaded and verified in it."""
_STOP_S = 20.0
_MOST_BYTES = 4096


class Hearing:
    """Of one process. Times are monotonic seconds."""

    def __init__(self) -> None:
        # The kernel chooses an abstract name, so there is no file to leave behind and no path that is too long.
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind("")
        self._begin()

    def environment(self) -> dict[str, str]:
        """Return what the process needs to find this; it says itself how long it may be silent."""
        address = "@" + bytes(self._socket.getsockname())[1:].decode()
        return {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": str(round(_START_S * 1e6))}

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def listen(self, pid: int) -> None:
        """Take in what the process has said; others, also those that it has started, are not believed."""
        with contextlib.suppress(BlockingIOError):
            while True:
                text, ancillary, _, _ = self._socket.recvmsg(_MOST_BYTES, socket.CMSG_SPACE(_CREDENTIALS.size))
                senders = [_CREDENTIALS.unpack(data)[0] for _, kind, data in ancillary if kind == socket.SCM_CREDENTIALS]
                if senders == [pid]:
                    self._take(text.decode("utf-8", "replace"))

    def start_over(self) -> None:
        """Another process takes the place of the one that was heard: forget it."""
        self.listen(-1)
        self._begin()

    def overdue(self, now: float) -> bool:
        """Return whether the process has been silent for longer than it said that a piece of its work takes."""
        return now > self._until

    def no_more(self) -> None:
        """Expect nothing further: the process was killed."""
        self._until = float("inf")

    def stop_within(self, asked: float) -> float:
        """Return until when a process that was told to end at `asked` may take."""
        return max(asked + _STOP_S, self._until if self._stopping else 0.0)

    def _begin(self) -> None:
        self.ready = False
        self._stopping = False
        self._limit_s = _START_S
        self._until = time.monotonic() + _START_S

    def _take(self, text: str) -> None:
        now = time.monotonic()
        said = dict(line.partition("=")[::2] for line in text.splitlines())
        if (limit := _seconds(said.get("WATCHDOG_USEC"))) is not None:
            self._limit_s = limit
        if "READY" in said:
            self.ready = True
        if "STOPPING" in said:
            self._stopping = True
            self._until = now + _STOP_S
        if "READY" in said or "WATCHDOG" in said:
            self._until = now + self._limit_s
        if (more := _seconds(said.get("EXTEND_TIMEOUT_USEC"))) is not None:
            self._until = max(self._until, now + more)


def _seconds(microseconds: str | None) -> float | None:
    return int(microseconds) / 1e6 if microseconds is not None and microseconds.isdecimal() else None
