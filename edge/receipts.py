"""What a receipt does to the outbox, whichever way it came."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable

from edge.contract.messages import Hello, Receipt
from edge.contract.seqset import SeqSet
from edge.outbox import Outbox

log = logging.getLogger(__name__)


class Receipts:
    """Asks the centre what it holds, and marks what it says.

    Two ways can be in use at once. An answer that was overtaken by a receipt of the other way tells less than is known, and must
    not be taken for a loss: so a rewind needs that nothing was marked since the question.
    """

    def __init__(
        self,
        outbox: Outbox,
        held: Callable[[SeqSet, list[int]], None] = lambda held, also: None,
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        """Args: held: told what need not be sent any more; lost: told that the outbox was rewound."""
        self._outbox = outbox
        self._held = held
        self._lost = lost
        self._marked = 0
        self._asked: dict[str, tuple[str, int]] = {}

    def ask(self, way: str) -> Hello:
        """Return the question that is to go out by that way; it replaces the last one."""
        nonce = secrets.token_hex(16)
        self._asked[way] = (nonce, self._marked)
        return Hello(
            device=self._outbox.device,
            epoch=self._outbox.epoch,
            lowest_unreceipted=self._outbox.lowest_unreceipted(),
            last_seq=self._outbox.last_seq(),
            nonce=nonce,
        )

    def take(self, receipt: Receipt) -> int:
        """Mark what the centre holds; return how many outcomes waited for just that."""
        if receipt.device != self._outbox.device or receipt.epoch != self._outbox.epoch:
            return 0  # of an outbox that this device no longer has
        held = SeqSet(receipt.through, receipt.plus)
        quarantined = [(item.seq, item.reason) for item in receipt.quarantined]
        for seq, reason in quarantined:
            log.warning("the centre keeps seq %d apart: %s", seq, reason)
        if (receipt.answers, self._marked) in self._asked.values() and (count := self._outbox.rewind(held)):
            log.warning("the centre has lost %d results that it once had; they are sent again", count)
            self._lost()
        count = self._outbox.mark_receipted(held.through, held.ranges, quarantined)
        self._marked += count
        self._held(held, [seq for seq, _ in quarantined])
        return count
