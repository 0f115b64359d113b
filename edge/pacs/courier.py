"""The parent's side of making and sending: a child for as long as there is something to send, and none while there is not."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from typing import Protocol

import msgspec

from edge.config import Decode
from edge.pacs.orders import Echo, Order, Sent
from edge.pixels.decoder_protocol import await_frame, write_frame

_START_S = 30.0
"""For a small board to load what the child needs."""
_ASSOCIATION_S = 15.0


class Lost(Exception):
    """The child died or took too long over an order; the text is for the log."""


class Carries(Protocol):
    """What brings orders to the PACS; the real one is `Courier`."""

    def deliver(self, order: Order) -> Sent:
        """Carry out an order. Raises Lost if that ended the child."""
        ...

    def rest(self) -> None:
        """There is nothing to do for a while."""
        ...


def longest_s(limits: Decode, silent_s: float) -> float:
    """Return the seconds that an order may take, with a PACS that may be silent for `silent_s`."""
    return _START_S + 2 * _ASSOCIATION_S + limits.timeout_s + 3 * silent_s


class Courier:
    """Carries out orders one after the other in a child process, within the limits of [decode]."""

    def __init__(self, limits: Decode) -> None:
        self._limits = limits
        self._child: subprocess.Popen[bytes] | None = None

    def deliver(self, order: Order | Echo) -> Sent:
        """Carry out an order.

        Raises:
            Lost: if the child died or took too long over it.
        """
        deadline = time.monotonic() + longest_s(self._limits, order.link.silent_s)
        child = self._running()
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            write_frame(child.stdin, msgspec.msgpack.encode(order))
            return msgspec.msgpack.decode(await_frame(child.stdout.fileno(), deadline), type=Sent)
        except TimeoutError:
            child.kill()
            why = "it took too long"
        except (OSError, EOFError, ValueError, msgspec.DecodeError):
            why = "its process ended"
        self.rest()
        raise Lost(why)

    def rest(self) -> None:
        """End the child, if there is one."""
        child, self._child = self._child, None
        if child is None:
            return
        assert child.stdin is not None
        assert child.stdout is not None
        with contextlib.suppress(OSError):
            child.stdin.close()
        try:
            child.wait(2.0)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self.rest()
            own = (os.getpid(), self._limits.memory_mb, max(int(self._limits.timeout_s), 1))
            command = [sys.executable, "-m", "edge.pacs.child", *map(str, own)]
            self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self._child
