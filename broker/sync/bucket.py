"""How often each device may ask: a bucket of requests that fills slowly. No I/O, no clock."""

from __future__ import annotations

import threading
from collections import OrderedDict

_NAMES = 10_000


class Buckets:
    """One bucket for each name. The longest unused is forgotten, so that made-up names do not fill the memory."""

    def __init__(self, size: float = 60.0, per_s: float = 2.0) -> None:
        """Args: size: requests that may come at once; per_s: requests a second in the long run."""
        self._size = size
        self._per_s = per_s
        self._turn = threading.Lock()
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str, now: float) -> float:
        """Take one request of `name` at `now` (seconds); return 0, or how many seconds it must wait."""
        with self._turn:
            level, at = self._levels.pop(name, (self._size, now))
            level = min(self._size, level + (now - at) * self._per_s)
            wait_s = max(0.0, (1.0 - level) / self._per_s)
            self._levels[name] = (level if wait_s else level - 1.0, now)
            if len(self._levels) > _NAMES:
                self._levels.popitem(last=False)
            return wait_s
