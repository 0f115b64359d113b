"""The second way to the centre: batches from the outbox by HTTPS, when MQTT brings no receipt.

The same bytes as by MQTT, the same receipts back, marked by the same code. It never waits: `step` does what is due and returns.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple, Protocol

from edge.contract.codec import decode_command, decode_receipt, encode
from edge.contract.errors import ContractError
from edge.contract.frames import MAX_BODY, Frame, pack, unpack
from edge.contract.messages import Command, Receipt, Reply, Status
from edge.contract.topics import Channel
from edge.delivery.fallback import Fallback
from edge.delivery.receipts import Receipts
from edge.errors import OutboxFull
from edge.outbox.reader import Row
from edge.outbox.writer import Outbox

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.2
_MOST_COMMANDS = 4


class Answer(NamedTuple):
    """What an exchange brought. `trouble` is empty and `body` the centre's frames, or `trouble` says why not."""

    body: bytes = b""
    trouble: str = ""
    wait_s: float = 0.0


class Exchange(Protocol):
    """The second way's wire."""

    def begin(self, body: bytes, now: float) -> None:
        """Send `body`; not while `busy`."""
        ...

    def poll(self, now: float) -> Answer | None:
        """Return the answer once, when it is there; never waits."""
        ...

    @property
    def busy(self) -> bool:
        """Whether an exchange has begun and its answer was not taken yet."""
        ...


class SyncRoute:
    """The `edge.delivery.relay.Route` that speaks through an `Exchange`."""

    def __init__(
        self,
        outbox: Outbox,
        receipts: Receipts,
        status: Callable[[], Status],
        exchange: Exchange,
        after_s: float,
        obey: Callable[[Command], Reply],
    ) -> None:
        """Args: after_s: seconds without a receipt by MQTT before this way is used; obey: does what the centre asks for."""
        self._outbox = outbox
        self._receipts = receipts
        self._status = status
        self._exchange = exchange
        self._obey = obey
        self._replies: list[Reply] = []
        self._fallback = Fallback(after_s)
        self._cursor = 0
        self._batch: tuple[int, int | None] = (0, None)
        self._next_look = 0.0
        self._said = ""

    def first_way_works(self, now: float) -> None:
        """See `Route.first_way_works`."""
        if self._fallback.in_use:
            log.info("MQTT brings receipts again; HTTPS rests")
        self._fallback.first_way_works(now)

    def step(self, now: float) -> None:
        """See `Route.step`."""
        if self._exchange.busy:
            if (answer := self._exchange.poll(now)) is not None:
                self._on_answer(answer, now)
            return
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_EVERY_S
        self._fallback.waiting(now, bool(self._outbox.unreceipted(0, 1)))
        if self._replies or self._fallback.due(now):
            self._begin(now)

    def _begin(self, now: float) -> None:
        rows = self._outbox.unreceipted(self._cursor, self._fallback.rows)
        if not rows:  # the end: once more from the beginning, for what the centre did not answer
            self._cursor = 0
            if not self._replies:
                return
        greeting = [Frame(Channel.HELLO, encode(hello)) for hello in self._receipts.ask("https")]
        greeting.append(Frame(Channel.STATUS, encode(self._status())))
        # Sent once: the centre asks again for what it did not get.
        greeting += [Frame(Channel.REPLY, encode(reply)) for reply in self._replies]
        self._replies.clear()
        while len(body := _body(greeting, rows)) > MAX_BODY:
            rows = rows[: len(rows) // 2]
        self._batch = (self._cursor, rows[0].number if rows else None)
        self._cursor = rows[-1].number if rows else 0
        for row in rows:
            self._receipts.offered(row.number)
        self._exchange.begin(body, now)

    def _on_answer(self, answer: Answer, now: float) -> None:
        trouble, count = answer.trouble, 0
        if not trouble:
            try:
                frames = unpack(answer.body)
                receipts = [decode_receipt(frame.payload) for frame in frames if frame.channel is Channel.RECEIPT]
                commands = [decode_command(frame.payload) for frame in frames if frame.channel is Channel.COMMAND]
            except ContractError as error:
                trouble = f"The centre's answer by HTTPS was not understood ({error})."
            else:
                trouble, count = self._take(receipts)
                self._replies = [self._obey(command) for command in commands[:_MOST_COMMANDS]]
        before, first = self._batch
        if count:
            if not self._fallback.in_use:
                log.info("MQTT brings no receipts; results go by HTTPS")
            self._said = ""
            self._fallback.delivered()
            self._next_look = now
            return
        if first is None or self._outbox.payload(first) is None:
            return  # nothing was asked for but commands, or meanwhile MQTT delivered it
        self._fallback.failed(now, answer.wait_s)
        if trouble:
            self._cursor = before
        else:
            trouble = "The centre answered by HTTPS, and gave no receipt for what it was sent."
        if trouble != self._said:
            self._said = trouble
            log.warning("%s Results wait here, and both ways are tried again.", trouble)

    def _take(self, receipts: list[Receipt]) -> tuple[str, int]:
        """Return (why not all could be noted, how many outcomes waited for them)."""
        count = 0
        try:
            for receipt in receipts:
                count += self._receipts.take(receipt)
        except OutboxFull as error:  # the centre says it again when it is asked
            return str(error), count
        return "", count


def _body(greeting: list[Frame], rows: list[Row]) -> bytes:
    return pack([*greeting, *(Frame(Channel.RESULT, row.payload) for row in rows)])
