"""Kills, by chance and where they hurt, until there were as many of each kind as planned."""

from __future__ import annotations

import random
from collections import Counter

from tests.soak.plan import Plan
from tests.soak.processes import DEVICE, KINDS, Processes


class Killer:
    """Counts down what is still to be killed."""

    def __init__(self, plan: Plan, processes: Processes, rng: random.Random) -> None:
        self._processes = processes
        self._rng = rng
        self._left = Counter(dict.fromkeys(KINDS, plan.least))
        self._left.update(rng.choices(KINDS, k=plan.kills - self._left.total()))

    @property
    def left(self) -> int:
        """How many there are still to be."""
        return self._left.total()

    def left_of(self, kind: str) -> int:
        """Return how many of that kind there are still to be."""
        return self._left[kind]

    def draw(self) -> str:
        """Return what is to be killed next."""
        return self._rng.choices(list(self._left), list(self._left.values()))[0]

    def kill(self, kind: str, *, again: bool = True) -> None:
        """Kill it, if it runs just now, and start it again at once if `again`."""
        if self._processes.kill(kind, again=again):
            self._left[kind] = max(self._left[kind] - 1, 0)

    def kill_device(self) -> None:
        """Kill all processes of the device, one after the other."""
        for name in DEVICE:
            self.kill(name)
