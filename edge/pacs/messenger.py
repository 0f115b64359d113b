"""The process that tells the PACS: one outcome after the other, by number, each until the PACS has it or refuses it for good."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from pathlib import Path

import apsw
import msgspec

from edge.errors import OutboxError
from edge.lifecycle import Stop
from edge.notify import nothing
from edge.pacs.courier import Carries, Lost
from edge.pacs.cursor import Place, begin, keep_place, read_place
from edge.pacs.orders import PICTURE, Sent
from edge.pacs.waiting import Next, Waiting
from edge.page.reading import Reading

log = logging.getLogger(__name__)

MOST_TRIALS = 3
"""Of an object that the PACS refuses, and of an outcome that ends the child, the picture left out from the second on."""
_LOOK_EVERY_S = 2.0
_PAUSES_S = (2.0, 300.0)


class Messenger:
    """Of one device. Opens the outbox anew for each look, since a damaged one is replaced while this runs."""

    def __init__(
        self, state: Path, reading: Reading, waiting: Waiting, courier: Carries, pauses: tuple[float, float] = _PAUSES_S
    ) -> None:
        """Args: pauses: after the first failure in a row and at most, in seconds."""
        self._state = state
        self._reading = reading
        self._waiting = waiting
        self._courier = courier
        self._pauses = pauses
        self._failures = 0
        self._said = ""

    def run(self, stop: Stop, progress: Callable[[], object] = nothing) -> None:
        """Tell the PACS what there is, then what comes, until told to stop. `progress` is called after each step.

        Raises:
            OSError: if the disk does not take how far it got.
        """
        while not stop.is_set():
            pause = self.step()
            progress()
            until = time.monotonic() + pause
            while time.monotonic() < until and not stop.is_set():
                progress()  # in the thread of the work, and nothing is due: that is not a hang
                time.sleep(0.1)

    def step(self) -> float:
        """Do what is next; return for how many seconds there is nothing to do."""
        try:
            with self._reading.open() as outbox:
                begin(self._state, outbox)
                place = read_place(self._state) or Place()
                found = self._waiting.next(outbox, place)
        except (OutboxError, apsw.Error) as error:  # it is only just being made, or being rebuilt
            self._say_once(str(error))
            return _LOOK_EVERY_S
        if found is None:
            self._courier.rest()
            return _LOOK_EVERY_S
        if found.gone:
            log.error("%d outcomes were removed for room before the PACS could be told of them", found.gone)
        if found.order is None:
            self._done(place, found)
            return 0.0
        try:
            sent = self._courier.deliver(found.order)
        except Lost as lost:
            return self._lost(place, found, str(lost))
        return self._told(place, found, sent)

    def _told(self, place: Place, found: Next, sent: Sent) -> float:
        if sent.away:
            self._say_once(f"The PACS is not told at present, and what it is to be told waits: {sent.away}")
            return self._pause()
        self._said, self._failures = "", 0
        if sent.nothing:
            log.info("seq %d: no study to put an answer into (%s)", found.seq, sent.nothing)
        if not sent.refused:
            if sent.taken:
                log.info("seq %d: the PACS has the %s", found.seq, " and the ".join(sent.taken))
            self._done(place, found)
            return 0.0
        return self._refused(place, found, sent)

    def _refused(self, place: Place, found: Next, sent: Sent) -> float:
        why = ", ".join(f"{kind}: {reason}" for kind, reason in sent.refused.items())
        if place.trials + 1 < MOST_TRIALS:
            log.warning("seq %d: the PACS refuses it (%s); it is tried again", found.seq, why)
            keep_place(self._state, msgspec.structs.replace(place, trials=place.trials + 1))
            return self._pause()
        log.error("seq %d: the PACS refuses it (%s); it is not sent any more", found.seq, why)
        self._failures = 0
        self._done(place, found, refused=len(sent.refused))
        return 0.0

    def _lost(self, place: Place, found: Next, why: str) -> float:
        if place.trials + 1 < MOST_TRIALS:
            log.error("seq %d: an answer to the PACS could not be made (%s); it is tried again without its picture", found.seq, why)
            keep_place(self._state, msgspec.structs.replace(place, trials=place.trials + 1, dropped=(PICTURE,)))
            return self._pause()
        log.error("seq %d: an answer to the PACS could not be made (%s); it is not tried any more", found.seq, why)
        self._done(place, found, refused=1)
        return 0.0

    def _done(self, place: Place, found: Next, refused: int = 0) -> None:
        keep_place(
            self._state,
            Place(
                through=place.through | {found.epoch: found.seq},
                refused=place.refused + refused,
                gone=place.gone + found.gone,
            ),
        )

    def _pause(self) -> float:
        self._failures += 1
        longest: float = min(self._pauses[0] * 2 ** min(self._failures - 1, 16), self._pauses[1])
        self._courier.rest()
        return longest * random.uniform(0.5, 1.0)

    def _say_once(self, text: str) -> None:
        if text != self._said:
            self._said = text
            log.warning("%s", text)
