"""Time passes: what is due is done, who ended is started again, and whatever takes too long is an error."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable

from tests.soak.site import Site

_TICK_S = 0.02
_SAY_EVERY_S = 30.0


class Stuck(Exception):
    """Something did not happen in time, or a sender has failed; the text says what."""


class Stage:
    """All of it happens in the one thread that calls `tick` or `wait`."""

    def __init__(self, site: Site, limit_s: float) -> None:
        """Args: limit_s: how long all of it may take."""
        self._site = site
        self._until = time.monotonic() + limit_s
        self._agenda: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._began = self._said = time.monotonic()

    def after(self, pause_s: float, action: Callable[[], object]) -> None:
        """Do something in `pause_s` seconds."""
        heapq.heappush(self._agenda, (time.monotonic() + pause_s, next(self._numbers), action))

    def tick(self) -> None:
        """Let a moment pass.

        Raises:
            Stuck: if a sender has failed, or the whole time is over.
        """
        time.sleep(_TICK_S)
        while self._agenda and self._agenda[0][0] <= time.monotonic():
            heapq.heappop(self._agenda)[2]()
        self._site.processes.look_after()
        for sender in self._site.all_senders():
            if sender.fault is not None:
                raise Stuck(f"a sender has failed: {sender.fault!r}") from sender.fault
        if time.monotonic() > self._said + _SAY_EVERY_S:
            self._say()
        if time.monotonic() > self._until:
            raise Stuck("the whole time is over")

    def wait(self, condition: Callable[[], object], what: str, timeout_s: float) -> None:
        """Let time pass until something is so.

        Raises:
            Stuck: if it is not so within `timeout_s` seconds.
        """
        until = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > until:
                raise Stuck(f"not within {timeout_s:g} s: {what}")
            self.tick()

    def _say(self) -> None:
        self._said = time.monotonic()
        site = self._site
        print(
            f"{self._said - self._began:5.0f} s: {site.ledger.received()} received, {site.device.waiting()} wait for the link "
            f"({site.link.state}), {site.processes.kills.total()} kills{', the disk is full' if site.disk.is_full else ''}",
            flush=True,
        )


def passed(seconds: float) -> Callable[[], bool]:
    """Return what tells whether that time has gone by since."""
    until = time.monotonic() + seconds
    return lambda: time.monotonic() > until
