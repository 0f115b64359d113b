"""The aggregator's loop: messages in, one transaction, then acknowledgements and receipts out. Knows neither MQTT nor SQL.

A message is acknowledged to the broker, and receipted to its device, only after the commit that holds it. Whatever ends the process
in between, the message comes again and counts once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from broker.errors import StoreUnavailable
from broker.ingest import Decision, Inbound, classify
from broker.settle import Settler
from broker.store import Store
from edge.contract import codec, topics
from edge.contract.messages import Command
from edge.contract.topics import Channel

log = logging.getLogger(__name__)

BATCH = 500
"""Messages in one transaction, at most."""

LINGER_S = 0.01
"""How long a batch waits for more: fewer syncs and fewer receipts, for a delay that nobody sees."""

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message, and what the link needs to acknowledge it."""

    message: Inbound
    mid: int = 0
    qos: int = 0
    session: int = 0


class Link(Protocol):
    """The connection to the broker as the aggregator sees it."""

    def receive(self, limit: int, linger_s: float, timeout_s: float) -> list[Delivery]:
        """Return up to `limit` messages; wait at most `timeout_s` for the first and `linger_s` for the others."""
        ...

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Tell the broker that these need not be sent again. Those of an earlier connection are passed over."""
        ...

    def publish(self, topic: str, payload: bytes) -> None:
        """Send with QoS 1, or not at all while there is no connection: a device asks again."""
        ...


def no_commands(_decisions: Iterable[Decision]) -> list[Command]:
    """Ask devices for nothing, for a centre without an authority."""
    return []


class Aggregator:
    """Takes batches from a link and puts them into a store until it is told to stop."""

    def __init__(self, store: Store, link: Link, answers: Callable[[list[Decision]], list[Command]] = no_commands) -> None:
        """Args: answers: told what came, once it is stored; returns what is to be asked of the devices."""
        self.settler = Settler(store)
        self._link = link
        self._answers = answers
        self.handled = 0

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; the batch in hand is finished first.

        Raises:
            StoreLocked: if another aggregator has taken the database over.
        """
        while not stop.is_set():
            deliveries = self._link.receive(BATCH, LINGER_S, timeout_s=0.5)
            if deliveries:
                self.handle(deliveries, stop)

    def handle(self, deliveries: Sequence[Delivery], stop: threading.Event) -> None:
        """Commit one batch, then acknowledge it. Waits as long as the database is not there, unless `stop` is set."""
        decisions = [classify(delivery.message) for delivery in deliveries]
        if self._settle(decisions, stop):
            self._link.acknowledge(deliveries)
            for command in self._answers(decisions):
                self._link.publish(topics.topic(command.device, Channel.COMMAND), codec.encode(command))
            self.handled += len(deliveries)

    def _settle(self, decisions: list[Decision], stop: threading.Event) -> bool:
        """Return True when all of `decisions` are durable and receipted, False when stopped before that."""
        pause = _FIRST_PAUSE_S
        while True:
            try:
                receipts = self.settler.settle(decisions)
            except StoreUnavailable as error:
                if pause == _FIRST_PAUSE_S:
                    log.error("The database does not take results: %s. They wait at the broker; trying again until it does.", error)
                if stop.wait(pause):
                    return False
                pause = min(pause * 2, _LONGEST_PAUSE_S)
                continue
            for receipt in receipts:
                self._link.publish(topics.topic(receipt.device, Channel.RECEIPT), codec.encode(receipt))
            if pause != _FIRST_PAUSE_S:
                log.info("The database takes results again.")
            return True
