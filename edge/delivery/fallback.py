"""When the second way to the centre is used, and how much is sent by it. No I/O, no clock.

The first way (MQTT) is always tried. What has waited for `after_s` without a receipt of the first way goes by the second; from then
on what is new goes there too, after a head start that lets a first way that works again show it. Then the second way rests.
"""

from __future__ import annotations

import random

from edge.contract.frames import MAX_RESULTS

HEAD_START_S = 2.0
FEWEST = 8
_BACKOFF_S = (2.0, 60.0)
_NEVER = float("inf")


class Fallback:
    """The memory of one process; all of it can be lost."""

    def __init__(self, after_s: float) -> None:
        """Args: after_s: seconds without a receipt by the first way before the second is used."""
        self._after_s = after_s
        self._waits_since = _NEVER
        self._not_before = 0.0
        self._failures = 0
        self._in_use = False
        self.rows = MAX_RESULTS

    @property
    def in_use(self) -> bool:
        """Whether the second way has delivered since the first one last did."""
        return self._in_use

    def waiting(self, now: float, anything: bool) -> None:
        """Say whether any outcome waits for a receipt."""
        if not anything:
            self._waits_since = _NEVER
        elif self._waits_since == _NEVER:
            self._waits_since = now

    def first_way_works(self, now: float) -> None:
        """A receipt of the first way ended the wait of something: give it the whole time again."""
        self._in_use = False
        if self._waits_since != _NEVER:
            self._waits_since = now

    def due(self, now: float) -> bool:
        """Return whether a batch is to go by the second way now."""
        patience = min(HEAD_START_S, self._after_s) if self._in_use else self._after_s
        return now - self._waits_since >= patience and now >= self._not_before

    def delivered(self) -> None:
        """A batch got its receipts."""
        self._in_use = True
        self._failures = 0
        self.rows = min(self.rows * 2, MAX_RESULTS)

    def failed(self, now: float, wait_s: float = 0.0) -> None:
        """A batch brought nothing: pause, longer each time and at least `wait_s`; then try a smaller one."""
        pause = min(_BACKOFF_S[0] * 2**self._failures, _BACKOFF_S[1])
        self._failures = min(self._failures + 1, 16)
        self._not_before = now + max(pause, wait_s) * random.uniform(1.0, 1.5)
        self.rows = max(self.rows // 4, FEWEST)
