"""What a receipt does to the outbox, whichever way it came."""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Callable

from edge.contract.messages import ClosedEpoch, Hello, Receipt
from edge.contract.seqset import SeqSet
from edge.outbox import Outbox

log = logging.getLogger(__name__)

_MOST_CLOSED = 16
"""As many closed epochs as a greeting has room for."""
_ROOMY = 0.7
"""Share of the room beyond which what has its receipt is removed before its time; below the alarm."""


class Receipts:
    """Asks the centre what it holds of each epoch, and marks what it says.

    Two ways can be in use at once. An answer that was overtaken by a receipt of the other way tells less than is known, and must
    not be taken for a loss: so a rewind needs that nothing of the epoch was marked since the question.
    """

    def __init__(
        self,
        outbox: Outbox,
        held: Callable[[SeqSet, list[int]], None] = lambda held, also: None,
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        """Args: held: told which numbers need not be sent any more; lost: told that the outbox was rewound."""
        self._outbox = outbox
        self._held = held
        self._lost = lost
        self._marked: Counter[str] = Counter()
        self._asked: dict[tuple[str, str], tuple[str, int]] = {}
        self._unanswered: dict[str, set[str]] = {}

    def ask(self, way: str, *, again: bool = False) -> list[Hello]:
        """Return the questions that are to go out by a way, one for each epoch, the present one first; they replace the last ones.

        Args:
            way: its name.
            again: only those that the centre has not answered yet: who listens only later would else never hear of a closed epoch.
        """
        *closed, present = self._outbox.streams()
        streams = [present, *closed[-_MOST_CLOSED:]]
        if again:
            streams = [stream for stream in streams if stream.epoch in self._unanswered.get(way, ())]
        else:
            self._unanswered[way] = {stream.epoch for stream in streams}
        nonce = secrets.token_hex(16)
        for stream in streams:
            self._asked[way, stream.epoch] = (nonce, self._marked[stream.epoch])
        return [
            Hello(
                device=self._outbox.device,
                epoch=stream.epoch,
                lowest_unreceipted=self._outbox.lowest_unreceipted(stream),
                last_seq=stream.last_seq,
                nonce=nonce,
                closed=[ClosedEpoch(past.epoch, past.last_seq) for past in closed[-_MOST_CLOSED:]] if stream is present else [],
            )
            for stream in streams
        ]

    def take(self, receipt: Receipt) -> int:
        """Mark what the centre holds; return how many outcomes waited for just that.

        Raises:
            OutboxFull: if it cannot be noted at present. The centre says it again when it is asked.
        """
        stream = next((one for one in self._outbox.streams() if one.epoch == receipt.epoch), None)
        if receipt.device != self._outbox.device or stream is None:
            return 0  # of an outbox that this device no longer has
        held = SeqSet(receipt.through, receipt.plus)
        for item in receipt.quarantined:
            log.warning("the centre keeps seq %d apart: %s", item.seq, item.reason)
        if self._answers(receipt) and (count := self._outbox.rewind(held, stream)):
            log.warning("the centre has lost %d results that it once had; they are sent again", count)
            self._lost()
        numbers = stream.numbers(held)
        quarantined = [(stream.base + item.seq, item.reason) for item in receipt.quarantined if item.seq <= stream.last_seq]
        if count := self._outbox.mark_receipted(numbers.through, numbers.ranges, quarantined):
            self._outbox.make_room(_ROOMY)
        self._marked[receipt.epoch] += count
        self._held(numbers, [number for number, _ in quarantined])
        return count

    def _answers(self, receipt: Receipt) -> bool:
        """Return whether a receipt answers a question since which nothing of its epoch was marked."""
        fresh = False
        for (way, epoch), (nonce, marked) in self._asked.items():
            if epoch == receipt.epoch and nonce == receipt.answers:
                self._unanswered[way].discard(epoch)
                fresh |= marked == self._marked[epoch]
        return fresh
