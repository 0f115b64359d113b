"""Which outcome is sent next: a sliding window over the outbox, and again what has no receipt in time. No I/O, no clock.

A publish that the broker acknowledged is not delivered: it may still die with the broker. Only the centre's receipt ends the
story of an outcome. Until then it is sent again after a timeout that doubles up to 15 minutes. A `seq` here is the number of
an outcome in the outbox, which differs from the seq on the wire only after the outbox was rebuilt.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from edge.contract.seqset import SeqSet
from edge.outbox.reader import Row

MAX_TIMEOUT_S = 900.0
HORIZON = 5_000
"""Outcomes sent and not receipted at one time. Bounds memory here and the queue at a broker whose aggregator is away."""

_BATCH = 500
_MOST_DOUBLINGS = 30  # far beyond the longest timeout; without it the number outgrows a float after 11 days
_NEVER = float("inf")


class Source(Protocol):
    """Where outcomes wait; the real one is `edge.outbox.writer.Outbox`."""

    def unreceipted(self, after: int, limit: int) -> list[Row]:
        """Return outcomes without a receipt, in order."""
        ...

    def payload(self, number: int) -> bytes | None:
        """Return one of them."""
        ...


@dataclass(slots=True)
class _Sent:
    trials: int
    due: float


class Delivery:
    """The sender's memory of one process; everything in it can be lost, since the outbox knows what has a receipt."""

    def __init__(self, source: Source, *, window: int, timeout_s: float) -> None:
        """Args: window: messages without PUBACK at one time; timeout_s: seconds before the first repetition."""
        self._source = source
        self._window = window
        self._timeout_s = timeout_s
        self._cursor = 0
        self._exhausted = False
        self._fresh: deque[Row] = deque()
        self._flying: dict[int, int] = {}
        self._heard = 0.0
        self._sent: dict[int, _Sent] = {}
        self._due: list[tuple[float, int]] = []

    @property
    def unreceipted(self) -> int:
        """Outcomes sent at least once by this process and not receipted."""
        return len(self._sent)

    def wake(self) -> None:
        """The outbox has changed: look for new outcomes at the next `take`."""
        self._exhausted = False

    def reconnected(self, now: float) -> None:
        """A new connection: what was in flight on the old one is due at once."""
        for seq in self._flying.values():
            if (sent := self._sent.get(seq)) is not None:  # a receipt can overtake the broker's acknowledgement
                self._schedule(seq, sent, now)
        self._flying.clear()

    def take(self, now: float) -> Row | None:
        """Return the next outcome to publish, or None if there is none or the window is full."""
        if len(self._flying) >= self._window:
            return None
        while self._due and self._due[0][0] <= now:
            due, seq = heapq.heappop(self._due)
            sent = self._sent.get(seq)
            if sent is None or sent.due != due:
                continue  # receipted, or scheduled anew
            payload = self._source.payload(seq)
            if payload is None:
                del self._sent[seq]
                continue
            return Row(seq, payload)
        if not self._fresh and not self._exhausted and len(self._sent) < HORIZON:
            rows = self._source.unreceipted(self._cursor, min(_BATCH, HORIZON - len(self._sent)))
            self._exhausted = not rows
            self._fresh.extend([row for row in rows if row.number not in self._sent] if self._sent else rows)
            if rows:
                self._cursor = rows[-1].number
        return self._fresh.popleft() if self._fresh else None

    def published(self, mid: int, seq: int, now: float) -> None:
        """The outcome was handed to the connection under a message id."""
        if not self._flying:
            self._heard = now
        sent = self._sent.get(seq)
        if sent is None:
            self._sent[seq] = _Sent(1, _NEVER)
        else:
            sent.trials += 1
            sent.due = _NEVER
        self._flying[mid] = seq

    def acknowledged(self, mid: int, now: float) -> int | None:
        """The broker answered, whatever it said: now the receipt is waited for. Return the seq, None if it was none of ours."""
        seq = self._flying.pop(mid, None)
        if seq is not None:
            self._heard = now
        if seq is not None and (sent := self._sent.get(seq)) is not None:
            doublings = min(sent.trials - 1, _MOST_DOUBLINGS)
            self._schedule(seq, sent, now + min(self._timeout_s * 2**doublings, MAX_TIMEOUT_S))
        return seq

    def unanswered_for(self, now: float) -> float:
        """Return how many seconds the broker has acknowledged nothing although something is in flight; 0 if nothing is."""
        return now - self._heard if self._flying else 0.0

    def receipted(self, held: SeqSet, also: Sequence[int] = ()) -> None:
        """The centre holds these; stop sending them."""
        for seq in [seq for seq in self._sent if seq in held]:
            del self._sent[seq]
        for seq in also:
            self._sent.pop(seq, None)

    def start_over(self) -> None:
        """The outbox was rewound: begin again at its lowest unreceipted outcome."""
        self._cursor = 0
        self._exhausted = False
        self._fresh.clear()

    def next_due(self) -> float:
        """Return when the next repetition falls due; infinity if none does."""
        return self._due[0][0] if self._due else _NEVER

    def _schedule(self, seq: int, sent: _Sent, due: float) -> None:
        sent.due = due
        heapq.heappush(self._due, (due, seq))
