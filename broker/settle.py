"""From decisions to receipts: one transaction, then what the devices may forget. One batch at a time, whichever way it came.

Messages by MQTT, by HTTPS and from a file all go through here, so that all count once and are receipted after their commit only.
"""

from __future__ import annotations

import logging
import threading

from broker.errors import StoreRefused, StoreUnavailable
from broker.ingest import Accepted, Decision, Rejected
from broker.ledger import Ledger
from broker.store import Store
from edge.contract.messages import Receipt

log = logging.getLogger(__name__)


class Settler:
    """The only user of a store and its ledger. May be called from several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ledger = Ledger(store)
        self._turn = threading.Lock()

    def settle(self, decisions: list[Decision], wait_s: float = -1.0) -> list[Receipt]:
        """Make `decisions` durable; return what is to be told to the devices.

        Args:
            decisions: what `classify` returned for each message.
            wait_s: how long another batch is waited for, in seconds; -1: as long as it takes.

        Raises:
            StoreUnavailable: if a later call may succeed. Some of `decisions` may be stored then; they count once all the same.
            StoreLocked: if another aggregator has taken the database over.
        """
        if not self._turn.acquire(timeout=wait_s):
            raise StoreUnavailable("the database is busy with an earlier batch")
        try:
            return self._settle(decisions)
        finally:
            self._turn.release()

    def _settle(self, decisions: list[Decision]) -> list[Receipt]:
        try:
            plan = self._ledger.plan(decisions)
            self._store.commit(plan.batch)
        except StoreRefused as error:
            self._ledger.forget()
            if len(decisions) > 1:  # one by one, so that the bad one holds nobody up
                return [receipt for decision in decisions for receipt in self._settle([decision])]
            if not isinstance(decisions[0], Accepted):
                log.error("Dropped a message that the database will never take: %s.", error)
                return []
            return self._settle([_refused(decisions[0], error)])
        except BaseException:
            # Memory is ahead of the database now: the next receipt would name what was never stored.
            self._ledger.forget()
            raise
        for odd in plan.batch.rejected:
            log.warning("Quarantined a message of %s: %s (%.200r).", odd.device or "an unknown sender", odd.reason, odd.detail)
        return list(self._ledger.receipts(plan))


def _refused(accepted: Accepted, error: StoreRefused) -> Rejected:
    """What becomes of the one outcome that the database will never take."""
    outcome = accepted.outcome
    return Rejected(
        reason="invalid",
        detail=f"the database refuses it: {error}",
        topic=accepted.topic,
        payload=accepted.payload,
        received_ms=accepted.received_ms,
        device=outcome.device,
        epoch=outcome.epoch,
        seq=outcome.seq,
        delivered=True,
    )
