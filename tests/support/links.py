"""A `Link` without a network."""

from __future__ import annotations

import time
from collections.abc import Sequence

from broker.aggregate import Delivery
from broker.ingest import Inbound
from edge.contract import codec
from edge.contract.messages import Receipt


class FakeLink:
    """Hands out what tests put in, and keeps what the aggregator sends and acknowledges."""

    def __init__(self) -> None:
        self.waiting: list[Delivery] = []
        self.acknowledged: list[int] = []
        self.receipts: list[Receipt] = []
        self._mid = 0

    def put(self, topic: str, payload: bytes, *, retained: bool = False) -> Delivery:
        """Queue a message, as if it arrived now."""
        self._mid += 1
        self.waiting.append(Delivery(Inbound(topic, payload, time.time_ns() // 1_000_000, retained), self._mid, 1))
        return self.waiting[-1]

    def receive(self, limit: int, linger_s: float, timeout_s: float) -> list[Delivery]:
        """Return what is queued."""
        if not self.waiting:
            time.sleep(min(timeout_s, 0.01))
        batch, self.waiting = self.waiting[:limit], self.waiting[limit:]
        return batch

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Note them."""
        self.acknowledged += [delivery.mid for delivery in deliveries]

    def publish(self, topic: str, payload: bytes) -> None:
        """Note the receipt, which must stand on its device's topic."""
        receipt = codec.decode_receipt(payload)
        assert topic == f"cxr/v1/{receipt.device}/receipt"
        self.receipts.append(receipt)
