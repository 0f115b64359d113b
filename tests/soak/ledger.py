"""What the senders were told: the one account that the centre's rows are held against. For several threads."""

from __future__ import annotations

import threading
from collections import Counter

from tests.soak.studies import Study


class Ledger:
    """Studies that somebody was told to be received, each with what the device may take for its identity."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._told: dict[Study, set[str]] = {}
        self._voids: set[int] = set()
        self._counts: Counter[str] = Counter()

    def told(self, study: Study, sources: set[str]) -> None:
        """A sender was told that the study is received. It must now reach the centre, under exactly one of `sources`."""
        with self._turn:
            self._told[study] = sources

    def told_void(self, number: int) -> None:
        """The page answered that it will take back the outcome of this number."""
        with self._turn:
            self._voids.add(number)

    def count(self, what: str) -> None:
        """Count something that a sender met with."""
        with self._turn:
            self._counts[what] += 1

    def received(self) -> int:
        """Return how many studies were told to be received."""
        return len(self._told)

    def met(self, what: str) -> int:
        """Return how often a sender met with something."""
        return self._counts[what]

    def account(self) -> tuple[dict[Study, set[str]], set[int], Counter[str]]:
        """Return the studies with their identities, the numbers that were taken back, and what was counted."""
        with self._turn:
            return dict(self._told), set(self._voids), Counter(self._counts)
