"""What a receipt does to the outbox, whichever way it came."""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Callable

from edge.contract.messages import ClosedEpoch, Hello, Receipt
from edge.contract.seqset import SeqSet
from edge.contract.types import MAX_SEQ
from edge.errors import OutboxDamaged
from edge.outbox.reader import OutboxReader
from edge.outbox.writer import Outbox

log = logging.getLogger(__name__)

_MOST_CLOSED = 16
"""As many closed epochs as a greeting has room for."""
_ROOMY = 0.7
"""Share of the room beyond which what has its receipt is removed before its time; below the alarm."""


class Receipts:
    """Asks the centre what it holds of each epoch, and marks what it says.

    A centre that holds more of the present epoch than was given in it knows another life of this outbox: the folder was put back
    from an image, or the disk lost commits. Numbers were then given twice, and what the centre has under them is not what is here.
    The epoch is closed, and of a closed one a receipt counts only for what was sent since: if the centre holds something else under
    that number, it keeps both and says so.

    Two ways can be in use at once. An answer that was overtaken by a receipt of the other way tells less than is known, and must
    not be taken for a loss: so a rewind needs that nothing of the epoch was marked since the question.
    """

    def __init__(
        self,
        outbox: Outbox,
        held: Callable[[SeqSet, list[int]], None] = lambda held, also: None,
        lost: Callable[[], None] = lambda: None,
        *,
        all_offered: bool = False,
    ) -> None:
        """Say who is told.

        `held` is told which numbers need not be sent any more, `lost` that the outbox was rewound. `all_offered`: whether all that
        waits was offered to who wrote the receipts.
        """
        self._outbox = outbox
        self._all_offered = all_offered
        self._offered: set[int] = set()
        self._held = held
        self._lost = lost
        self._marked: Counter[str] = Counter()
        self._asked: dict[tuple[str, str], tuple[str, int]] = {}
        self._unanswered: dict[str, set[str]] = {}
        self.taken = 0
        """Outcomes that waited for a receipt and got it, since this process began."""

    def ask(self, way: str, *, again: bool = False) -> list[Hello]:
        """Return the questions that are to go out by a way, one for each epoch, the present one first; they replace the last ones.

        Args:
            way: its name.
            again: only those that the centre has not answered yet: who listens only later would else never hear of a closed epoch.
        """
        hellos = greetings(self._outbox)
        if again:
            hellos = [hello for hello in hellos if hello.epoch in self._unanswered.get(way, ())]
        else:
            self._unanswered[way] = {hello.epoch for hello in hellos}
        for hello in hellos:
            self._asked[way, hello.epoch] = (hello.nonce, self._marked[hello.epoch])
        return hellos

    def offered(self, number: int) -> None:
        """An outcome was sent, by whichever way."""
        if number <= self._outbox.closed_before:
            self._offered.add(number)

    def take(self, receipt: Receipt) -> int:
        """Mark what the centre holds; return how many outcomes waited for just that.

        Raises:
            OutboxFull: if it cannot be noted at present. The centre says it again when it is asked.
            OutboxDamaged: if the centre holds more of the present epoch than was given in it. Nothing is marked then.
        """
        streams = self._outbox.streams()
        stream = next((one for one in streams if one.epoch == receipt.epoch), None)
        if receipt.device != self._outbox.device or stream is None:
            return 0  # of an outbox that this device no longer has
        held = SeqSet(receipt.through, receipt.plus)
        if stream is streams[-1] and (most := max([receipt.through, *(last for _, last in receipt.plus)])) > stream.last_seq:
            raise OutboxDamaged(
                f"The centre has seq {most} of this outbox, which ends with {stream.last_seq}: an old copy of it was put back, or "
                "the disk has lost what it took. The next start of `cxr-edge infer` begins a new one and saves what this holds."
            )
        for item in receipt.quarantined:
            log.warning("the centre keeps seq %d apart: %s", item.seq, item.reason)
        if self._answers(receipt) and (count := self._outbox.rewind(_not_lost(receipt), stream)):
            log.warning("the centre has lost %d results that it once had; they are sent again", count)
            self._lost()
        numbers = stream.numbers(held)
        quarantined = [(stream.base + item.seq, item.reason) for item in receipt.quarantined if item.seq <= stream.last_seq]
        if stream is not streams[-1] and not self._all_offered:
            numbers = SeqSet(0, [(number, number) for number in sorted(self._offered) if number in numbers])
            quarantined = [(number, reason) for number, reason in quarantined if number in self._offered]
        if count := self._outbox.mark_receipted(numbers.through, numbers.ranges, quarantined):
            self._outbox.make_room(_ROOMY)
        self._marked[receipt.epoch] += count
        self.taken += count
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


def greetings(outbox: OutboxReader) -> list[Hello]:
    """Return where this device stands in each of its epochs, the present one first, which names the closed ones."""
    *closed, present = outbox.streams()
    closed = closed[-_MOST_CLOSED:]
    nonce = secrets.token_hex(16)
    return [
        Hello(
            device=outbox.device,
            epoch=stream.epoch,
            lowest_unreceipted=outbox.lowest_unreceipted(stream),
            last_seq=stream.last_seq,
            nonce=nonce,
            closed=[ClosedEpoch(past.epoch, past.last_seq) for past in closed] if stream is present else [],
        )
        for stream in [present, *closed]
    ]


def _not_lost(receipt: Receipt) -> SeqSet:
    """Return what the centre holds, and what a receipt without room for everything says nothing about."""
    first, last = receipt.within or (1, MAX_SEQ)
    kept = SeqSet(max(receipt.through, first - 1), receipt.plus)
    if last < MAX_SEQ:
        kept.add_range(last + 1, MAX_SEQ)
    return kept
